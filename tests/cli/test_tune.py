"""``jaxopt-core tune`` and ``jaxopt-core profile`` as their user meets them."""

import csv
import tomllib

import pytest
from optuna.exceptions import StorageInternalError

from jaxopt_core import cli
from jaxopt_core.cli.config import read_config

SPACE = """
hidden = [8]
epochs = 2
schedule = "constant"
[lr]
low = 1e-3
high = 3e-2
log = true
[optimizer]
choices = ["adamw", "sgd"]
[momentum]
low = 0.5
high = 0.9
when = { optimizer = "sgd" }
"""


def test_from_a_space_to_a_trained_model(tmp_path, capsys):
    (tmp_path / "space.toml").write_text(SPACE)
    out = tmp_path / "tuned"
    command = f"tune digits --space {tmp_path / 'space.toml'} --trials 6 --batch 6 --parts 3 --out {out}"
    assert cli.main(command.split()) == 0
    printed = capsys.readouterr().out
    assert "6 trials, 2 programs compiled" in printed
    assert f"next: jaxopt-core train digits --config {out / 'best.toml'}" in printed
    rows = list(csv.DictReader((out / "trials.csv").read_text().splitlines()))
    assert len(rows) == 6
    complete = [row for row in rows if row["status"] == "complete"]
    best = min(complete, key=lambda row: float(row["loss"]))
    _, options = read_config(out / "best.toml", "digits")
    assert (options.optimizer, options.hidden, options.epochs) == (best["optimizer"], (8,), 2)
    assert options.lr == float(best["lr"])
    assert (options.momentum is None) == (best["optimizer"] == "adamw")
    if len(complete) > 1:
        assert (out / "history.png").read_bytes().startswith(b"\x89PNG")
    assert cli.main(f"train digits --config {out / 'best.toml'} --out {tmp_path / 'run'}".split()) == 0
    assert tomllib.loads((tmp_path / "run" / "config.toml").read_text())["lr"] == options.lr


SMALL = """
hidden = [8]
schedule = "constant"
[weight_decay]
low = 0
high = 1
"""


def test_one_folder_is_for_one_study(tmp_path, capsys, monkeypatch):
    (tmp_path / "space.toml").write_text(SMALL)
    out = tmp_path / "tuned"
    where = f"--space {tmp_path / 'space.toml'} --batch 2 --pruner none --out {out}"
    command = f"tune digits --epochs 1 --parts 1 {where}"
    assert cli.main(f"{command} --trials 2".split()) == 0
    assert "2 trials, 1 programs compiled" in capsys.readouterr().out
    rows = list(csv.DictReader((out / "trials.csv").read_text().splitlines()))
    assert all(0 < float(row["weight_decay"]) < 1 for row in rows)

    best = (out / "best.toml").read_text()
    for other, differs in {
        f"tune image --epochs 1 --parts 1 {where}": "task, model, lr, eval_every: task is digits there",
        f"tune digits --epochs 2 --parts 1 {where}": "epochs: epochs is 1 there and 2 here",
        f"tune digits --epochs 2 --parts 2 {where}": "epochs, parts: epochs is 1 there and 2 here",
        f"{command} --seed 1": "seed: seed is 0 there and 1 here",
        f"{command} --metric accuracy": "metric: metric is loss there and accuracy here",
    }.items():
        assert cli.main(other.split()) == 2
        err = capsys.readouterr().err
        assert f"the study 'tune' in this storage has another fingerprint, in {differs}" in err
        assert err.count("\n") == 1
    assert (out / "best.toml").read_text() == best

    def gone(*_, **__):
        raise StorageInternalError("the server is gone")

    monkeypatch.setattr("optuna.visualization.matplotlib.plot_optimization_history", gone)
    assert cli.main(f"{command} --trials 4".split()) == 0
    printed = capsys.readouterr().out
    assert "no pictures: the storage does not answer: the server is gone" in printed.splitlines()
    rows = list(csv.DictReader((out / "trials.csv").read_text().splitlines()))
    assert f"4/4 best loss {min(float(row['loss']) for row in rows):.4f}" in printed
    assert len(rows) == 4


WRONG = {
    "--trials 0": "--trials: expected a positive integer, found 0",
    "--sampler magic": "--sampler: there is no 'magic'; there are tpe, random, qmc",
    "--space absent.toml": "absent.toml: cannot be read (No such file or directory)",
    "--space bad.toml": "--space: bad.toml: there is no 'learning_rate'",
    "--space type.toml": "--space: type.toml: epochs: expected a value of type int, found 'many'",
    "--space range.toml": "--space: range.toml: --lr: expected a positive number, found -1.0",
    "--space name.toml": "--space: name.toml: optimizer: there is no 'nonsense'; there are sgd, adam",
    "--space when.toml": "when.toml: momentum: expected when to be {name: value}, found 'sgd'",
    "--space log.toml": "log.toml: lr: expected log to be true or false, found 'no'",
    "--metric acuracy": "--metric: there is no 'acuracy'; there are accuracy, loss; nearest: accuracy",
    "--storage mysql://x": "storage: expected sqlite, journal or postgresql, found 'mysql'",
    "--timeout -1": "--timeout: expected a positive number, found -1.0",
    "--data absent": "absent: expected a folder",
}


@pytest.mark.parametrize("options", WRONG)
def test_wrong_input_is_one_line_and_status_2(tmp_path, monkeypatch, capsys, options):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.toml").write_text("[learning_rate]\nlow = 0\nhigh = 1")
    (tmp_path / "type.toml").write_text('epochs = "many"\n[lr]\nlow = 0.1\nhigh = 1.0')
    (tmp_path / "range.toml").write_text("[lr]\nlow = -1.0\nhigh = 1.0")
    (tmp_path / "name.toml").write_text('[optimizer]\nchoices = ["adamw", "nonsense"]')
    (tmp_path / "when.toml").write_text('[momentum]\nlow = 0.5\nhigh = 0.9\nwhen = "sgd"')
    (tmp_path / "log.toml").write_text('[lr]\nlow = 0.1\nhigh = 1.0\nlog = "no"')
    assert cli.main(["tune", "digits", *options.split()]) == 2
    assert not (tmp_path / "tuned" / "study.db").exists()
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert WRONG[options] in err


def test_profile_prints_tables_and_writes_files(tmp_path, capsys):
    (tmp_path / "small.toml").write_text('task = "digits"\nhidden = [8]\nsteps_per_dispatch = 2\n')
    command = (
        f"profile digits --config {tmp_path / 'small.toml'} --warmup 1 --active 2 --out {tmp_path / 'p'}"
    )
    assert cli.main(command.split()) == 0
    out = capsys.readouterr().out
    assert "2 steps recorded" in out
    assert "synchronising" not in out  # fit reads its metrics after each dispatch, and nobody can change that
    assert {"forward", "backward", "data"} <= {line.partition(" ")[0] for line in out.splitlines()}
    assert {"flame.svg", "trace.json.gz", "plugins"} <= {path.name for path in (tmp_path / "p").iterdir()}
    assert cli.main(["profile", "digits", "--by", "color"]) == 2
    assert "--by: there is no 'color'" in capsys.readouterr().err
