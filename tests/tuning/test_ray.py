"""The example of Ray Tune, where ray is installed: it is too large to be an extra."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "ray_tune.py"


def test_the_example_finds_a_rate(tmp_path):
    pytest.importorskip("ray")
    done = subprocess.run(
        [sys.executable, str(EXAMPLE)],
        cwd=tmp_path,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lr, loss = map(float, re.search(r"best: lr=(\S+), loss=(\S+)", done.stdout).groups())
    assert 1e-2 < lr <= 1
    assert loss < 0.01
