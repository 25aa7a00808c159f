"""The benchmark of whole training steps runs, and notices a contender that computes something else."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import training_step

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_quick_run(tmp_path):
    out = tmp_path / "record.json"
    arguments = ["--quick", "--workloads", "mlp", "--out", str(out), "--contenders"]
    subprocess.run(
        [sys.executable, "-m", "benchmarks.training_step", *arguments, "torch", "flax + optax", "ours"],
        cwd=ROOT,
        # Without the virtual devices of the tests.
        env={name: text for name, text in os.environ.items() if name not in ("XLA_FLAGS", "NPROC")}
        | {"JAX_NUM_CPU_DEVICES": "1"},
        capture_output=True,
        check=True,
        timeout=300,
    )
    rows = {row["contender"]: row for row in json.loads(out.read_text())["results"]}
    assert set(rows) == {"torch", "flax + optax", "ours"}
    assert rows["ours"]["losses"] == pytest.approx(rows["torch"]["losses"], rel=1e-4)
    assert len(set(rows["ours"]["losses"])) == 3
    assert min(row["ratio_to_best_peer"] for row in rows.values() if row["peer"]) == 1


class Constant:
    """A contender whose loss never changes."""

    steps_per_call = 1

    def __init__(self, loss):
        self.loss = loss

    def step(self):
        pass

    def wait(self):
        pass

    def losses(self):
        return [self.loss]


class Here:
    """A worker without a process, which would not see what a test puts in."""

    def __init__(self, *arguments):
        *_, stage = arguments
        self.stage = stage()

    def __call__(self, verb, *args):
        return getattr(self.stage, verb)(*args)

    def close(self):
        pass


@pytest.mark.parametrize(("loss", "status"), [(1.0005, 0), (1.01, 1), (float("nan"), 1)])
def test_other_losses_are_an_error(loss, status, monkeypatch, capsys):
    made = {"torch": lambda *_: Constant(1.0), "ours": lambda *_: Constant(loss)}
    monkeypatch.setattr(training_step, "CONTENDERS", made)
    monkeypatch.setattr(training_step, "Worker", Here)
    monkeypatch.setattr(training_step, "limit_threads", lambda threads: None)
    assert training_step.main(["--quick", "--workloads", "resnet18"]) == status
    assert ("ours: its first losses on resnet18 are" in capsys.readouterr().err) == bool(status)
