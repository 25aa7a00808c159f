"""The machine that a result belongs to."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import time
from pathlib import Path
from typing import Any

__all__ = ["copy_bandwidth", "describe", "slug"]

_PACKAGES = ("jax", "jaxlib", "optax", "torch", "numpy")
_SETTINGS = ("XLA_FLAGS", "JAX_PLATFORMS", "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "MKL_NUM_THREADS")


def describe(quick: bool = False) -> dict[str, Any]:
    """Processor or card, libraries, settings and copy bandwidth, as this process sees them."""
    import jax

    card = jax.default_backend() == "gpu"
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": _memory_gib(),
        "gpu": jax.devices()[0].device_kind if card else None,
        "backend": jax.default_backend(),
        "platform": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in _PACKAGES},
        "settings": {name: os.environ[name] for name in _SETTINGS if name in os.environ},
        "load_average": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "copy_gb_per_s": copy_bandwidth((1 << 20) if quick else (1 << 30) if card else (1 << 28)),
    }


def copy_bandwidth(size: int, repeats: int = 10, burst: int = 5) -> float:
    """The rate at which an array streams through the processor: bytes read plus bytes written.

    Args:
      size: bytes of the array.
      repeats: how often; the best counts.
      burst: passes before waiting, which hides an accelerator's latency.

    Returns:
      1e9 bytes per second, in place or into another array, whichever is faster.
    """
    import jax
    import jax.numpy as jnp

    best = float("inf")
    for donated in ((), (0,)):
        negate = jax.jit(jnp.negative, donate_argnums=donated)
        x = y = negate(jnp.ones(size // 4, jnp.float32))
        for _ in range(repeats):
            y.block_until_ready()
            start = time.perf_counter()
            for _ in range(burst):
                y = negate(y if donated else x)
            y.block_until_ready()
            best = min(best, (time.perf_counter() - start) / burst)
    return round(2 * size / best / 1e9, 1)


def slug(machine: dict[str, Any]) -> str:
    """A short name for files.

    Example:
      >>> slug({"cpu": "AMD EPYC", "cores": 2, "gpu": None})
      'amd-epyc-2-cores'
    """
    name = machine["gpu"] or f"{machine['cpu']} {machine['cores']} cores"
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = re.findall(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE)
        if models:
            return str(models[0])
    return platform.processor() or platform.machine()


def _memory_gib() -> float | None:
    if "SC_PHYS_PAGES" not in os.sysconf_names:
        return None
    return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
