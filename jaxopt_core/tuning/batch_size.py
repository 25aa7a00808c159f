"""The largest batch that fits into the memory of the device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from jaxopt_core.tuning.memory import default_memory, program_bytes

__all__ = ["BatchSize", "find_batch_size"]


class BatchSize(NamedTuple):
    """What was found.

    Attributes:
      size: the largest batch that fits, or the largest that was allowed.
      needed: bytes of the step with it.
      memory: bytes that it may use.
      tried: batch size -> bytes, of every step that was compiled.
    """

    size: int
    needed: int
    memory: int
    tried: dict[int, int]


def find_batch_size(
    step: Callable[..., Any],
    make_inputs: Callable[[int], tuple[Any, ...]],
    *,
    most: int = 65536,
    memory: int | None = None,
    donate: tuple[int, ...] = (),
) -> BatchSize:
    """Finds the largest batch with which a step fits into memory, without running it.

    The compiler says how many bytes a program needs, so nothing is allocated and no out-of-memory error has
    to be survived, as Lightning's ``BatchSizeFinder`` has to. Sizes double until one does not fit; then the
    gap is halved, until it is below a sixteenth of the size.

    Args:
      step: what is to fit: a training step with its gradients, compiled by this function.
      make_inputs: batch size -> the arguments of ``step``, arrays or ``jax.ShapeDtypeStruct``.
      most: largest size that is tried. Default 65536.
      memory: bytes. Default: most of what is free on the device.
      donate: indices of the arguments that the step may overwrite. Default: none.

    Raises:
      ValueError: not even one example fits.

    Example:
      >>> import jax.numpy as jnp
      >>> def step(w, x):
      ...     return jax.grad(lambda w: jnp.sum(jnp.tanh(x @ w)))(w)
      >>> def shapes(size):
      ...     return jax.ShapeDtypeStruct((64, 64), "float32"), jax.ShapeDtypeStruct((size, 64), "float32")
      >>> found = find_batch_size(step, shapes, memory=4 << 20)
      >>> found.needed <= 4 << 20, found.size >= 2048
      (True, True)
    """
    if most < 1:
        raise ValueError(f"most: expected 1 or more, got {most}")
    limit = default_memory(jax.local_devices()[0]) if memory is None else memory
    tried: dict[int, int] = {}

    def fits(size: int) -> bool:
        if size not in tried:
            compiled = jax.jit(step, donate_argnums=donate).lower(*make_inputs(size)).compile()
            tried[size] = program_bytes(compiled)
        return tried[size] <= limit

    if not fits(1):
        raise ValueError(f"one example needs {tried[1] / 2**20:.1f} MiB; {limit / 2**20:.1f} MiB are allowed")
    low, high = 1, 2
    while high <= most and fits(high):
        low, high = high, 2 * high
    high = min(high, most + 1)
    while high - low > max(1, low // 16):
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    if high == most + 1 and low < most and fits(most):
        low = most
    return BatchSize(low, tried[low], limit, tried)
