"""What ``setup_cpu`` changes in a process that calls it."""

import ctypes
import os
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import jax, jax.numpy as jnp
import jaxopt_core as jo

if sys.argv[1] != "plain":
    jo.setup_cpu(one_pass=False, keep_memory=sys.argv[1] == "keep")

@jax.jit
def step(x):  # 64 MiB that nobody keeps
    return jnp.sin(x.T @ x)[::512]

x = jnp.ones((16, 4096))
for count in range(24):
    if count == 8:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    step(x).block_until_ready()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(how):
    """Of 16 steps of a program with temporary arrays."""
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, how],
        env=os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    return int(done.stdout)


@pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library has nothing to be told: it is not glibc"
)
def test_memory_is_kept_from_step_to_step():
    plain, set_up, kept = map(page_faults, ("plain", "set up", "keep"))
    assert min(plain, set_up) > 12 * 16384  # 64 MiB have that many pages of 4 KiB, and the steps are 16
    assert kept < plain / 2
