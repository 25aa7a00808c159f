"""Training on CPUs: memory that stays with the program, and an optimizer step in one pass over it.

An Adam step reads a gradient, a parameter and two slots and writes the last three: seven passes over
memory, and memory is what bounds it. By default XLA compiles one loop for each output, which makes ten.
With a flag that :func:`setup_cpu` sets it can write several outputs in one loop, if nothing in the loop
is shared by them; so each output is then computed from inputs of its own (:func:`one_pass`).
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxopt_core.tree import Slots

__all__ = ["one_pass", "setup_cpu"]

_OPTION = "xla_cpu_use_multi_output_fusion"
_WIDTH = "--xla_cpu_prefer_vector_width"  # bits; a processor with narrower vectors takes its own
# glibc's malloc.h: name -> (number, value).
_MALLOC = {
    "M_TRIM_THRESHOLD": (-1, 2**31 - 1),  # free bytes at the end of the heap that it gives back
    "M_TOP_PAD": (-2, 2**26),  # bytes that it asks for beyond what it needs
    "M_MMAP_MAX": (-4, 0),  # arrays that lie outside of the heap
    "M_ARENA_MAX": (-8, 1),  # heaps, which otherwise each thread may have
}
_SMALLEST = 16384  # elements worth it: what fits into the cache is not bound by memory


def setup_cpu(*, one_pass: bool = True, keep_memory: bool = True) -> None:
    """Sets JAX and XLA up for training on CPUs; call it before anything is computed.

    ``benchmarks/README.md`` says what each part gives. On a GPU or TPU none does anything worth having.

    Args:
      one_pass: add ``xla_cpu_use_multi_output_fusion`` to the environment variable ``XLA_FLAGS``, which JAX
        reads once, when its first array is made: an optimizer step then goes over memory once, and, by
        ``--xla_cpu_prefer_vector_width=512``, in the widest vectors that the processor has. Of use
        where the optimizer counts; a network with large activations and few parameters may be slower
        with it. Default True.
      keep_memory: tell the C library (glibc; elsewhere this does nothing) to keep what is freed for the
        next allocation. Otherwise a program's temporary arrays go back to the system after every step, and
        the system clears each of their pages anew in the next: a fifth of a small GPT's step. The process
        stays as large as it once was, and its threads share one heap: leave it out where several run small
        programs at a time, as :func:`jaxopt_core.tuning.sweep` does. Default True.

    Raises:
      RuntimeError: JAX has already started.

    Example:
      In the first lines of a script::

        import jaxopt_core as jo

        jo.setup_cpu()
    """
    if _has_started():
        raise RuntimeError(
            "setup_cpu() must come before JAX starts: call it before the first array is made and before "
            "jax.devices(), or set XLA_FLAGS=--xla_backend_extra_options=" + _OPTION + " for the process."
        )
    if keep_memory:
        _keep_memory()
    if one_pass:
        _fuse_outputs()


def _keep_memory() -> None:
    """Every allocation from one heap that never shrinks, by glibc's ``mallopt``."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, or Windows
        return
    for option, value in _MALLOC.values():
        mallopt(option, value)


def _fuse_outputs() -> None:
    flags = os.environ.get("XLA_FLAGS", "").split()
    if any(_OPTION in flag for flag in flags):
        return
    if not any(flag.startswith(_WIDTH) for flag in flags):
        flags.append(_WIDTH + "=512")
    extra = "--xla_backend_extra_options="
    options = [flag.removeprefix(extra) for flag in flags if flag.startswith(extra)]
    rest = [flag for flag in flags if not flag.startswith(extra)]
    os.environ["XLA_FLAGS"] = " ".join([*rest, extra + ",".join([*options, _OPTION])])


def _has_started() -> bool:
    # JAX does not say, but refuses to change this setting once it has started.
    setting = "jax_num_cpu_devices"
    value = jax.config.values[setting]
    try:
        jax.config.update(setting, value + 2)
    except RuntimeError:
        return True
    jax.config.update(setting, value)
    return False


@functools.cache
def _fuses_outputs() -> bool:
    """Whether the flag is on, asked of the compiler itself: the environment may have come too late."""
    if jax.default_backend() != "cpu" or _OPTION not in os.environ.get("XLA_FLAGS", ""):
        return False
    two_outputs = jax.jit(lambda x: (jnp.sin(x) + 1, jnp.cos(x) + 2))
    text = two_outputs.lower(jax.ShapeDtypeStruct((64,), jnp.float32)).compile().as_text() or ""
    return any("fusion(" in line and "= (" in line for line in text.splitlines())


def one_pass(
    step: Callable[[jax.Array, jax.Array, Slots], tuple[jax.Array, Slots]],
    grad: jax.Array,
    param: jax.Array,
    slots: Slots,
    count: jax.Array,
) -> tuple[jax.Array, Slots]:
    """``step(grad, param, slots)``, in a form that XLA on CPU compiles to one pass over memory.

    Every output but the first gets inputs of its own, multiplied by a 1 of which the compiler cannot know
    that it is 1, nor that it is the same for all of them. The multiplications are exact and nearly free.
    For small parameters, and where the compiler makes separate loops anyway, this is ``step`` itself.
    """
    if param.size < _SMALLEST or not _fuses_outputs():
        return step(grad, param, slots)

    def slot(name: str, index: int) -> jax.Array:
        one = jnp.where(count < 0, 1.0 + index, 1.0).astype(grad.dtype)

        def own(x: Any) -> Any:
            return x * one if jnp.issubdtype(x.dtype, jnp.floating) and x.ndim > 0 else x

        return step(own(grad), own(param), {n: own(old) for n, old in slots.items()})[1][name]

    change, new = step(grad, param, slots)
    return change, {name: slot(name, index) for index, name in enumerate(new, start=1)}
