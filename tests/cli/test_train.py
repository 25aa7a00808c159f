"""``jaxopt-core train`` and what goes with it, as their user meets them."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from jaxopt_core import cli
from jaxopt_core.training import Checkpoints, read_csv
from tests.data.mnist_files import write_mnist

FAST = ["--epochs", "2", "--hidden", "16", "--eval-every", "22", "--batch-size", "64"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short run, whose folder no test changes."""
    folder = tmp_path_factory.mktemp("run")
    assert cli.main(["train", "digits", *FAST, "--seed", "3", "--tensorboard", "--out", str(folder)]) == 0
    return folder


def last(capsys):
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("jaxopt-core: ")
    assert err.endswith("\n")
    assert err.count("\n") == 1
    return err.removeprefix("jaxopt-core: ").rstrip()


def parameters(folder):
    with np.load(folder / "params.npz") as archive:
        return dict(archive)


def assert_same_parameters(one, other):
    one, other = parameters(one), parameters(other)
    assert one.keys() == other.keys()
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name])


@pytest.mark.slow
def test_the_default_recipe_reads_digits(tmp_path, capsys):
    assert cli.main(["train", "digits", "--out", str(tmp_path)]) == 0
    assert read_csv(tmp_path / "metrics.csv")["val_accuracy"][-1] >= 0.98
    out, err = capsys.readouterr()
    assert err == ""
    assert "test accuracy 0.98" in out


def test_what_a_run_leaves(run):
    steps, rows = read_csv(run / "steps.csv"), read_csv(run / "metrics.csv")
    assert steps["step"] == list(range(1, 45))
    assert list(steps) == ["step", "loss", "accuracy", "grad_norm", "lr"]
    assert rows["step"] == [22, 44]
    assert rows["val_accuracy"][-1] > 0.15
    np.testing.assert_allclose(rows["train_loss"][1], np.mean(steps["loss"][22:]), rtol=1e-6)
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert Checkpoints(run / "checkpoints").steps() == [22, 44]
    assert any((run / "tensorboard").iterdir())
    assert parameters(run)["layers/0/kernel"].shape == (64, 16)


def test_a_run_is_repeated_from_its_configuration(run, tmp_path):
    command = ["train", "digits", "--config", str(run / "config.toml"), "--out", str(tmp_path)]
    assert cli.main(command) == 0
    assert_same_parameters(run, tmp_path)
    assert read_csv(run / "steps.csv") == read_csv(tmp_path / "steps.csv")
    here, there = ((path / "config.toml").read_text().splitlines() for path in (run, tmp_path))
    assert [line for line in here if line not in there] == [f'out = "{run}"']
    # What stands on the command line comes first.
    assert cli.main([*command, "--seed", "4"]) == 0
    assert not np.array_equal(parameters(run)["layers/0/kernel"], parameters(tmp_path)["layers/0/kernel"])


def test_resumed_from_a_checkpoint_it_ends_at_the_same_bits(run, tmp_path, capsys):
    folder = tmp_path / "copy"
    shutil.copytree(run, folder)
    assert cli.main(["train", "digits", "--out", str(folder), "--resume-step", "22"]) == 0
    assert_same_parameters(run, folder)
    assert read_csv(run / "steps.csv") == read_csv(folder / "steps.csv")
    capsys.readouterr()
    assert cli.main(["train", "digits", "--out", str(folder), "--resume-step", "23"]) == 2
    assert "expected a checkpoint of step 23" in capsys.readouterr().err


def test_a_damaged_checkpoint_is_one_line_with_the_way_back(run, tmp_path, capsys):
    folder = tmp_path / "copy"
    shutil.copytree(run, folder)
    meta = folder / "checkpoints" / "44" / "meta" / "metadata"
    meta.write_text(meta.read_text().replace("seconds", "secondz"))
    assert cli.main(["train", "digits", "--out", str(folder), "--resume"]) == 2
    assert "go back with --resume-step 22\n" in capsys.readouterr().err


def test_evaluate_says_what_the_run_said(run, tmp_path, capsys):
    folder = tmp_path / "copy"
    shutil.copytree(run, folder)
    assert cli.main(["evaluate", str(folder), "--which", "last"]) == 0
    found = json.loads((folder / "evaluation.json").read_text())
    rows = read_csv(folder / "metrics.csv")
    assert found["step"] == 44
    assert found["accuracy"] == rows["val_accuracy"][-1]
    np.testing.assert_allclose(found["loss"], rows["val_loss"][-1], rtol=1e-6)
    assert f"test accuracy {found['accuracy']:.4f}" in capsys.readouterr().out


def test_plot_compares_runs(run, tmp_path, capsys):
    out = tmp_path / "picture.png"
    assert cli.main(["plot", str(run), str(run), "--out", str(out)]) == 0
    assert out.read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out == f"wrote {out}\n"


@pytest.mark.parametrize(
    "compress", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["plain", "gzip"]
)
def test_trains_on_idx_files(tmp_path, compress):
    write_mnist(tmp_path, compress=compress)
    out = tmp_path / "new" / "folder"
    options = "--epochs 2 --batch-size 8 --hidden 16 8 --schedule constant"
    assert cli.main(["train", "digits", "--data", str(tmp_path), "--out", str(out), *options.split()]) == 0
    assert parameters(out)["layers/1/kernel"].shape == (16, 8)


@pytest.mark.slow
def test_all_at_once(tmp_path, capsys):
    options = (
        "--optimizer sgd --momentum 0.9 --lr 0.5 --schedule one_cycle --precision float16 --accumulate 2 "
        "--clip 1 --ema 0.9 --early-stop 3 --max-time 60 --epochs 2 --hidden 16"
    )
    assert cli.main(["train", "digits", "--out", str(tmp_path), *options.split()]) == 0
    assert read_csv(tmp_path / "steps.csv")["loss"][-1] < 2.3
    capsys.readouterr()
    assert cli.main(["evaluate", str(tmp_path)]) == 0


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "task",
    [
        pytest.param("image", marks=SLOW),
        pytest.param("text", marks=SLOW),
        pytest.param("speech", marks=SLOW),
        "recommend",
    ],
)
def test_every_task_runs(task, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", task, "--hidden", "8", "--batch-size", "8", "--fast-dev-run", "1"]) == 0
    assert "test " in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


WRONG = {
    "trian": "command: there is no 'trian'; there are train, ",
    "train digit": "task: there is no 'digit'; there are digits, image, text, speech, recommend; nearest: ",
    "train digits --epochs 0": "--epochs: expected a positive integer, found 0",
    "train digits --lr -0.1": "--lr: expected a positive number, found -0.1",
    "train digits --lr nan": "--lr: expected a positive number, found nan",
    "train digits --weight-decay -1": "--weight-decay: expected a number of at least 0, found -1.0",
    "train digits --ema 1": "--ema: expected a number from 0 to below 1, found 1.0",
    "train digits --hidden 3 0": "--hidden: expected positive integers, found 3 0",
    "train digits --seed -1": "--seed: expected an integer from 0 to 2**32 - 1, found -1",
    "train recommend --batch-size 500000": "108000 examples do not fill a batch of 500000",
    "train digits --optimizer adamW": "--optimizer: there is no 'adamW'; there are sgd, adam, adamw, ",
    "train digits --model mpl": "--model: there is no 'mpl'; there are mlp; nearest: mlp",
    "train digits --precision half": "--precision: there is no 'half'; there are float32, bfloat16, float16",
    "train digits --schedule cosin": "--schedule: there is no 'cosin'; there are constant, cosine, ",
    "train digits --schedule step_lr(0.1)": "--schedule: 'step_lr(0.1)': step_lr: ",
    "train digits --optimizer rprop --momentum 0.5": "--momentum: rprop has none",
    "train digits --data absent": "--data: absent: expected a folder with MNIST's IDX files, found no such",
    "train digits --out file/a": "--out: expected a folder that can be written to, found file/a (Not a dir",
    "train digits --config absent": "--config: absent: No such file or directory",
    "train digits --config bad.toml": "--config: bad.toml: there is no 'epoch'; there are ",
    "train image --config bad.toml": "--config: bad.toml: is for digits, not for image",
    "train digits --config type.toml": "--config: type.toml: epochs: expected a value of type int, ",
    "train digits --out absent --resume": "--config: absent/config.toml: No such file or directory",
    "train digits --lr fast": "",
    "train digits --epochs 1.5": "",
    "train digits --nesterov 1": "",
    "evaluate absent": "expected a run's folder with config.toml, found none in absent",
    "evaluate . --which first": "--which: there is no 'first'; there are best, last",
    "plot absent": "expected a run's folder with steps.csv, found none in absent",
    "plot": "",
}


@pytest.mark.parametrize("command", WRONG)
def test_wrong_input_is_one_line_and_status_2(tmp_path, monkeypatch, capsys, command):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "bad.toml").write_text('task = "digits"\nepoch = 3\n')
    (tmp_path / "type.toml").write_text('epochs = "ten"\n')
    before = sorted(path.name for path in tmp_path.iterdir())
    assert cli.main(command.split()) == 2
    assert last(capsys).startswith(WRONG[command])
    # Nothing is left of a run that never began.
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_divergence_is_one_line_and_status_1(tmp_path, capsys):
    command = ["train", "digits", "--epochs", "1", "--hidden", "8", "--optimizer", "sgd", "--lr", "1e30"]
    assert cli.main([*command, "--out", str(tmp_path)]) == 1
    err = capsys.readouterr().err
    assert err.startswith("jaxopt-core: ")
    assert "layers/" in err
    assert err.count("\n") == 1


def test_help_shows_defaults(capsys):
    for task, default in (("digits", "0.01"), ("text", "0.004")):
        with pytest.raises(SystemExit) as caught:
            cli.main(["train", task, "--help"])
        assert caught.value.code == 0
        text = capsys.readouterr().out
        assert default in text
        names = (
            "model optimizer lr schedule epochs batch-size precision accumulate clip ema early-stop data out"
        )
        assert all(f"--{name}" in text for name in [*names.split(), "resume", "seed", "config"])
    for command in ([], ["--help"], ["train"], ["train", "--help"]):
        assert cli.main(command) == 0
        text = capsys.readouterr().out
        assert "usage: jaxopt-core" in text
        assert "train TASK --help" in text


def test_missing_extra_is_one_line(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tyro", None)
    assert cli.main(["train", "digits"]) == 2
    assert last(capsys) == "tyro is not installed; it comes with pip install 'jaxopt-core[train]'"


def test_help_imports_nothing_heavy():
    heavy = "flax orbax sklearn matplotlib rich tyro tensorboardX torch"
    found = f"set('{heavy}'.split()) & set(sys.modules)"
    code = f"import sys; from jaxopt_core import cli; cli.main([]); print({found})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.endswith("set()\n"), done.stdout + done.stderr


@pytest.mark.slow
def test_sigterm_to_the_process(tmp_path):
    command = [sys.executable, "-m", "jaxopt_core.cli", "train", "digits", "--out", str(tmp_path)]
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "1"}
    process = subprocess.Popen(
        [*command, "--epochs", "100000"], env=environment, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 100
    while not Checkpoints(tmp_path / "checkpoints").steps() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143
    step = Checkpoints(tmp_path / "checkpoints").steps()[-1]
    assert err == f"jaxopt-core: stopped at step {step} by SIGTERM; --resume goes on from there\n"
