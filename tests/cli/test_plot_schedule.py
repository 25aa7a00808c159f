"""``jaxopt-core plot-schedule`` as its user meets it."""

from pathlib import Path

import pytest

from jaxopt_core import cli

ONE = "one_cycle_lr(0.1, total_steps=40)"
SEQUENCE = "sequential_lr([warmup(0.1, 10), cosine_annealing_lr(0.1, 30)], [10])"


def draw(*options: str) -> int:
    return cli.main(["plot-schedule", *options])


def test_draws_several_schedules(tmp_path, capsys):
    out = tmp_path / "lr.png"
    assert draw("--schedules", ONE, SEQUENCE, "--steps", "40", "--out", str(out)) == 0
    assert out.read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr() == (f"wrote {out}\n", "")


def test_has_defaults(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert draw("--schedules", "step_lr(0.1, 30)", "--log") == 0
    assert Path("schedules.png").read_bytes().startswith(b"\x89PNG")


WRONG = {
    ("--schedules", "step_lr(0.1"): "--schedules: 'step_lr(0.1': expected a call such as step_lr(0.1, 30)",
    (
        "--schedules",
        "steplr(0.1, 3)",
    ): "--schedules: 'steplr(0.1, 3)': there is no scheduler steplr; there are",
    ("--schedules", "step_lr(-1, 3)"): "--schedules: 'step_lr(-1, 3)': step_lr: Invalid learning rate: -1",
    ("--schedules", "step_lr(0.1)"): "--schedules: 'step_lr(0.1)': step_lr: missing 1 required positional",
    ("--schedules", "lambda_lr(1, 2)"): "--schedules: 'lambda_lr(1, 2)': lambda_lr needs a function: draw it",
    ("--schedules", ONE, "--steps", "50"): f"--schedules: '{ONE}': Tried to step 41 times.",
    ("--schedules", ONE, "--steps", "0"): "--steps: expected 1 to 1000000, found 0",
    ("--schedules",): "--schedules: expected at least one",
    ("--schedules", SEQUENCE, "--out", "absent/lr.png"): "--out: could not write absent/lr.png (No such file",
}


@pytest.mark.parametrize("options", WRONG, ids=" ".join)
def test_wrong_input_is_one_line_and_status_2(tmp_path, monkeypatch, capsys, options):
    monkeypatch.chdir(tmp_path)
    assert draw(*options) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"jaxopt-core: {WRONG[options]}")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_nothing_to_draw_cannot_be_parsed(capsys):
    assert draw() == 2
    err = capsys.readouterr().err
    assert "--schedules" in err
    assert err.count("\n") == 1
