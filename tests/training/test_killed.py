"""A run that is killed at any moment and resumed ends at the same bits as one that is left alone."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from jaxopt_core.training import Checkpoints, read_csv
from tests.training import killed_run

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    killed_run.main(folder, pause=False)
    return folder


def begin(folder):
    """A process that has begun to train, and where it began."""
    # One device, as users have; the numbers do not depend on it.
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "1"}
    command = [sys.executable, "-m", "tests.training.killed_run", str(folder)]
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    line = process.stdout.readline()
    assert line.startswith("at "), process.communicate()[1]
    return process, int(line.split()[1])


def assert_as_if_alone(folder, alone):
    with np.load(folder / "done.npz") as found, np.load(alone / "done.npz") as expected:
        assert found.files == expected.files
        for name in found.files:
            np.testing.assert_array_equal(found[name], expected[name])
    found, expected = read_csv(folder / "steps.csv"), read_csv(alone / "steps.csv")
    assert found == expected
    found, expected = (read_csv(path / "metrics.csv") for path in (folder, alone))
    for name in ("epoch", "step", "train_loss", "train_accuracy", "val_loss"):
        assert found[name] == expected[name], name


def kill_and_resume(folder, kills, seed):
    moments = random.Random(seed)
    for _ in range(kills):
        process, _ = begin(folder)
        time.sleep(moments.uniform(0.0, 2.5))
        process.kill()
        process.communicate()
        if (folder / "done.npz").exists():
            (folder / "done.npz").unlink()
    process, resumed_at = begin(folder)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return resumed_at


@pytest.mark.slow
def test_killed_twenty_times(tmp_path, alone):
    for attempt in range(5):
        folder = tmp_path / str(attempt)
        kill_and_resume(folder, 4, seed=attempt)
        assert_as_if_alone(folder, alone)


@pytest.mark.slow
def test_killed_then_asked_to_stop_which_saves_where_it_is(tmp_path, alone):
    for _ in range(2):
        process, _ = begin(tmp_path)
        time.sleep(random.uniform(0.0, 1.5))
        process.kill()
        process.communicate()
    process, _ = begin(tmp_path)
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    reason, step = output.split()
    assert reason == "SIGTERM"
    assert Checkpoints(tmp_path / "checkpoints").steps()[-1] == int(step)

    process, resumed_at = begin(tmp_path)
    assert resumed_at == int(step)
    process.communicate(timeout=120)
    assert_as_if_alone(tmp_path, alone)
