"""A strict session: no silent promotion of dtypes or ranks, and eight virtual devices."""

import os
from collections.abc import Iterator

DEVICES = 8

# All of this is read when JAX or torch starts, so it stands before their import.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_NUM_CPU_DEVICES"] = str(DEVICES)
# With fewer threads than virtual devices, many collective steps in flight wait for each other
# forever.
os.environ["NPROC"] = str(max(os.cpu_count() or 1, 2 * DEVICES))
# Most of the suite's time goes into compiling programs that run for microseconds: compile five times faster
# what runs slower. `XLA_FLAGS= make test` compiles as users do, and so do what compares rounding with
# PyTorch's (tests/compiling.py) and what starts processes of its own without these flags.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false")
# The workers of xdist share the cores; a second layer of threads only makes them wait.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def x64() -> Iterator[None]:
    """64-bit types for one test; everywhere else arrays are 32-bit, as users have them."""
    with jax.enable_x64(True):
        yield
