"""How gradients travel between devices: DDP's communication hooks.

A hook replaces the all-reduce of :func:`~jaxopt_core.parallel.synchronized`. It is two functions:

    init(params)                  -> state
    reduce(grads, state, axes)    -> (mean of the gradients over the mesh axes, state)

with the gradients of one device as a dict from path to array. What differs between devices in its state
goes into a :class:`~jaxopt_core.parallel.PerDevice`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

__all__ = ["Hook", "bf16_compress", "fp16_compress"]


class Hook(NamedTuple):
    """A communication hook; the module's text says what its functions do."""

    init: Callable[[Any], Any]
    reduce: Callable[[dict[str, jax.Array], Any, tuple[str, ...]], tuple[dict[str, jax.Array], Any]]


def fp16_compress() -> Hook:
    """Gradients travel in float16, as with ``ddp_comm_hooks.default_hooks.fp16_compress_hook``.

    They are divided by the number of devices before they are cast, so that their sum stays in range.

    Example:
      >>> import jaxopt_core as jo
      >>> from jaxopt_core.parallel import fp16_compress, synchronized
      >>> tx = synchronized(jo.adamw(), hook=fp16_compress())
    """
    return _compress(jnp.float16)


def bf16_compress() -> Hook:
    """Gradients travel in bfloat16, as with ``bf16_compress_hook``.

    XLA on CPU sends them as float32, rounded to bfloat16.
    """
    return _compress(jnp.bfloat16)


def _compress(dtype: Any) -> Hook:
    def reduce(grads: dict[str, jax.Array], state: Any, axes: tuple[str, ...]) -> tuple[Any, Any]:
        size = lax.axis_size(axes)

        def narrow(g: jax.Array) -> jax.Array:
            if not jnp.issubdtype(g.dtype, jnp.floating):
                raise TypeError(f"Compression needs real gradients; got {g.dtype}.")
            return (g / np.asarray(size, g.dtype)).astype(dtype)

        summed = lax.psum(jax.tree.map(narrow, grads), axes)
        return {path: summed[path].astype(g.dtype) for path, g in grads.items()}, state

    def init(params: Any) -> Any:
        del params
        return ()

    return Hook(init, reduce)
