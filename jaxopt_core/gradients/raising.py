"""An exception out of a compiled program."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["raise_if"]


def raise_if(bad: Any, error: type[Exception], message: str, value: Any) -> None:
    """Raises ``error(message.format(value))`` where ``bad`` is true, also inside ``jit``.

    Inside a compiled program nothing can be raised while tracing, so the program calls back into Python,
    but only in the step that is bad: a good one costs a comparison of a scalar. JAX then reports
    ``jax.errors.JaxRuntimeError``, whose text ends with ``error`` and the message, when the step's results
    are used. Those results do not exist, and arrays that were donated to the step are gone.

    Args:
      bad: scalar bool.
      error: what to raise.
      message: its text, with ``{}`` for the value.
      value: scalar.
    """

    def report(bad: Any, value: Any) -> None:
        if np.any(bad):  # under vmap, a batch calls back when one of its members is bad
            raise error(message.format(value))

    if not isinstance(bad, jax.core.Tracer):
        report(bad, value)
        return
    call = functools.partial(jax.debug.callback, report)
    jax.lax.cond(bad, call, lambda *_: None, bad, jnp.asarray(value))
