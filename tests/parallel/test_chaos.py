"""Twenty kills, stops and exceptions at random moments: every run ends as the one that nobody disturbed."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).parent / "training_script.py"
RUNS, FAULTS = 4, 5  # in each run
BOUND = 400.0  # seconds for a run
KINDS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP, "raise": signal.SIGUSR2}


def start(out):
    out.mkdir()
    command = [sys.executable, "-m", "jaxopt_core.parallel.launch", "--nproc", "2", "--devices-per-proc", "2"]
    command += [
        "--max-restarts",
        "10",
        "--backoff",
        "0.1",
        "--stall-timeout",
        "20",
        "--logs",
        str(out / "logs"),
    ]
    script = [str(SCRIPT), "--out", str(out), "--steps", "80", "--every", "3", "--pause", "0.05"]
    environ = {name: value for name, value in os.environ.items() if name != "NPROC"}
    with (out / "printed").open("w") as log:
        return subprocess.Popen([*command, *script], stdout=log, stderr=log, env=environ)


def pids(out, old=()):
    """The ranks' process ids, once both have made a step since ``old``."""
    found = [(out / f"{rank}.pid") for rank in range(2)]
    if not all(path.exists() for path in found):
        return None
    new = [int(path.read_text()) for path in found]
    return None if set(new) & set(old) else new


def disturb(out, launcher, draw, faults):
    """Sends the faults at random moments; the seconds from each to the first step afterwards."""
    seconds, ranks, sent, end = [], (), 0.0, time.monotonic() + BOUND
    for kind in faults:
        while (new := pids(out, ranks)) is None:
            assert launcher.poll() is None, (out / "printed").read_text()
            assert time.monotonic() < end, (out / "printed").read_text()
            time.sleep(0.02)
        if ranks:
            seconds.append(time.monotonic() - sent)
        ranks = new
        time.sleep(draw.uniform(0.0, 0.8))
        sent = time.monotonic()
        os.kill(draw.choice(ranks), KINDS[kind])
    assert launcher.wait(max(1.0, end - time.monotonic())) == 0, (out / "printed").read_text()
    return seconds


@pytest.mark.slow
def test_disturbed_runs_end_bitwise_equal(tmp_path, capsys):
    reference = start(tmp_path / "reference")
    assert reference.wait(BOUND) == 0
    expected = dict(np.load(tmp_path / "reference" / "end.npz"))
    seconds = {kind: [] for kind in KINDS}
    for run in range(RUNS):
        draw = random.Random(run)
        faults = draw.choices(list(KINDS), weights=[3, 1, 2], k=FAULTS)
        out = tmp_path / f"run-{run}"
        launcher = start(out)
        try:
            for kind, each in zip(faults, disturb(out, launcher, draw, faults), strict=False):
                seconds[kind].append(each)
        finally:
            launcher.terminate()
            launcher.terminate()
            launcher.wait(30)
        printed = (out / "printed").read_text()
        assert printed.count("attempt ") == FAULTS, printed
        with np.load(out / "end.npz") as held:
            for name, value in expected.items():
                np.testing.assert_array_equal(held[name], value)
    with capsys.disabled():
        print()
        for kind, each in seconds.items():
            print(f"recovery from {kind}: " + ", ".join(f"{s:.1f}" for s in each) + " s")
