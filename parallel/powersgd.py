"""PowerSGD: gradients travel as matrices of low rank.

Of a matrix M (n x m), with Q (m x r) from the step before and E what was lost so far on this device::

    M <- M + E
    P  = mean over devices of M Q;     P <- orthonormal columns of P
    Q  = mean over devices of M' P
    M^ = P Q';                         E <- M - M^

Source: Vogels, Karimireddy and Jaggi, "PowerSGD: Practical Low-Rank Gradient Compression for Distributed
Optimization", 2019, algorithms 1 and 2.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh

from jaxopt_core.checks import is_count
from jaxopt_core.parallel.hooks import Hook
from jaxopt_core.parallel.meshes import batch_shards
from jaxopt_core.parallel.placement import PerDevice
from jaxopt_core.tree import flatten

__all__ = ["PowerSGDState", "powersgd"]


class PowerSGDState(NamedTuple):
    """The state of :func:`powersgd`.

    Attributes:
      step: int32 scalar, reductions made so far.
      q: path -> the last Q of a compressed parameter, ``(m, rank)``.
      error: path -> what compression lost on each device, ``(devices, n, m)``.
    """

    step: jax.Array
    q: dict[str, jax.Array]
    error: PerDevice


def powersgd(
    mesh: Mesh,
    rank: int = 1,
    *,
    start_step: int = 1000,
    min_compression_rate: float = 2.0,
    error_feedback: bool = True,
    warm_start: bool = True,
    seed: int = 0,
) -> Hook:
    """Gradients travel as matrices of low rank, as with PyTorch's ``powerSGD_hook``.

    Args:
      mesh: the devices, each of which keeps its own error.
      rank: r. Default 1.
      start_step: reductions made in full before compression begins, while gradients change fast; with
        momentum a run that compresses from the first step can diverge. Default 1000.
      min_compression_rate: a parameter is compressed if ``(n + m) * rank`` is smaller than ``n * m`` by more
        than this factor; the others travel whole. Default 2.
      error_feedback: add what was lost to the next gradient. Default True.
      warm_start: begin with the last step's Q; otherwise with a random one every time. Default True.
      seed: of the first Q. Default 0.

    Returns:
      A hook.

    Raises:
      ValueError: a rank below 1, or a negative start; with error feedback or a warm start, a start below 2
        is an error in PyTorch, and allowed here.

    Differences from PyTorch: a parameter of any rank is seen as a matrix whose columns are its last axis
    (Flax's features), where PyTorch's rows are its first; P is orthonormalised by QR.

    Example:
      >>> import jax, jax.numpy as jnp, jaxopt_core as jo
      >>> from jaxopt_core.parallel import mesh, powersgd, synchronized
      >>> tx = synchronized(jo.sgd(lr=0.1), hook=powersgd(mesh(), rank=2, start_step=10))
      >>> state = tx.init({"kernel": jnp.ones((64, 32)), "bias": jnp.ones(32)})
      >>> {path: q.shape for path, q in state.hook_state.q.items()}
      {'kernel': (32, 2)}
    """
    if not is_count(rank) or rank < 1:
        raise ValueError(f"rank must be an integer of at least 1; got {rank!r}.")
    if not is_count(start_step):
        raise ValueError(f"start_step must be an integer of at least 0; got {start_step!r}.")
    devices = batch_shards(mesh)

    def is_compressed(leaf: Any) -> bool:
        if leaf.ndim < 2 or not jnp.issubdtype(leaf.dtype, jnp.floating):
            return False
        n, m = _matrix_shape(leaf.shape)
        return (n + m) * min(n, m, rank) * min_compression_rate < n * m

    def start(path: str, shape: tuple[int, ...], step: Any) -> jax.Array:
        key = jax.random.fold_in(jax.random.key(seed), sum(path.encode()))
        return jax.random.normal(jax.random.fold_in(key, step), shape, jnp.float32)

    def init(params: Any) -> PowerSGDState:
        q, error = {}, {}
        for path, leaf in flatten(params).present():
            if is_compressed(leaf):
                n, m = _matrix_shape(leaf.shape)
                q[path] = start(path, (m, min(n, m, rank)), 0)
                if error_feedback:
                    error[path] = jnp.zeros((devices, n, m), jnp.float32)
        return PowerSGDState(jnp.zeros([], jnp.int32), q, PerDevice(error))

    def reduce(
        grads: dict[str, jax.Array], state: PowerSGDState, axes: tuple[str, ...]
    ) -> tuple[dict[str, jax.Array], PowerSGDState]:
        chosen = [path for path in grads if path in state.q]
        whole = lax.pmean({path: g for path, g in grads.items() if path not in state.q}, axes)
        matrices = {p: grads[p].reshape(_matrix_shape(grads[p].shape)).astype(jnp.float32) for p in chosen}

        def in_full(_: Any) -> tuple[Any, Any, Any]:
            return lax.pmean(matrices, axes), state.q, state.error.value

        def compressed(_: Any) -> tuple[Any, Any, Any]:
            errors = state.error.value
            mine = {p: m + errors[p][0] if p in errors else m for p, m in matrices.items()}
            q = state.q
            if not warm_start:
                q = {p: start(p, q[p].shape, state.step) for p in q}
            ps = lax.pmean({p: m @ q[p] for p, m in mine.items()}, axes)
            ps = {p: jnp.linalg.qr(x)[0] for p, x in ps.items()}
            qs = lax.pmean({p: m.T @ ps[p] for p, m in mine.items()}, axes)
            approximate = {p: ps[p] @ qs[p].T for p in chosen}
            lost = {p: (mine[p] - approximate[p])[None] for p in errors}
            return approximate, {**state.q, **qs}, lost

        mean, q, error = lax.cond(state.step >= start_step, compressed, in_full, None)
        low = {p: mean[p].astype(grads[p].dtype).reshape(grads[p].shape) for p in chosen}
        step = jnp.minimum(state.step + 1, np.iinfo(np.int32).max - 1)
        return whole | low, PowerSGDState(step, q, PerDevice(error))

    return Hook(init, reduce)


def _matrix_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    return math.prod(shape[:-1]), shape[-1]
