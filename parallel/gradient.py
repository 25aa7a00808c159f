"""Gradients of one batch, or of several micro-batches with one exchange at the end."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec

from jaxopt_core.checks import is_count
from jaxopt_core.parallel.parts import division, gathered_leaf
from jaxopt_core.parallel.scope import Scope, current, micro_batch
from jaxopt_core.tree import flatten, is_absent

__all__ = ["Gradients", "gather_params", "gradients"]

LossFn = Callable[..., tuple[jax.Array, tuple[Any, Any]]]


class Gradients(NamedTuple):
    """What :func:`gradients` returns.

    Attributes:
      grads: of the parameters; where a step communicates itself those of this device, not yet averaged.
      loss: mean over the (device's part of the) batch.
      rest: what else the model changed.
      metrics: means likewise.
    """

    grads: Any
    loss: jax.Array
    rest: Any
    metrics: Any


def gradients(
    loss_fn: LossFn, *, micro_batches: int = 1, scale: Callable[[jax.Array], jax.Array] | None = None
) -> Callable[[Any, Any, Any, jax.Array], Gradients]:
    """The gradients of a loss, for any strategy; with micro-batches, DDP's ``no_sync``.

    Divided parameters are gathered first (FSDP). With ``micro_batches=K`` the batch is run in K parts, one
    after the other, in the memory of one, and the gradients are averaged over them; running statistics pass
    from each to the next, as in PyTorch. Where a step communicates itself, nothing is exchanged in between:
    K micro-batches cost one all-reduce, in :func:`~jaxopt_core.parallel.synchronized`. In the global view
    the compiler exchanges in each. With zero2 and fsdp the gradients are reduce-scattered in each
    micro-batch and only this device's part is accumulated: less memory, K times the traffic.

    Args:
      loss_fn: ``(params, rest, batch, rng) -> (loss, (rest, metrics))``, a mean over the batch; as for
        :func:`jaxopt_core.training.make_step`.
      micro_batches: K. It must divide the rows of each device. Row ``i`` of a device's part belongs to
        micro-batch ``i % K``. Default 1.
      scale: applied to the loss that is differentiated, for loss scaling:
        ``functools.partial(tx.scale, opt_state=...)``. Default None.

    Returns:
      ``(params, rest, batch, rng) -> Gradients``. Random numbers: use
      :func:`~jaxopt_core.parallel.example_keys` or :func:`~jaxopt_core.parallel.device_key` in the loss.

    Raises:
      ValueError: ``micro_batches`` is not a positive integer, or does not divide the rows.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxopt_core.parallel import gradients
      >>> def loss_fn(params, rest, batch, rng):
      ...     return jnp.mean((params * batch["x"] - 1) ** 2), (rest, {})
      >>> batch = {"x": jnp.arange(8.0)}
      >>> for k in (1, 4):
      ...     got = gradients(loss_fn, micro_batches=k)(jnp.ones(()), {}, batch, jax.random.key(0))
      ...     print(got.grads, got.loss)
      28.0 11.5
      28.0 11.5
    """
    if not is_count(micro_batches) or micro_batches < 1:
        raise ValueError(f"micro_batches must be an integer of at least 1; got {micro_batches!r}.")

    def objective(params: Any, rest: Any, batch: Any, rng: jax.Array) -> Any:
        loss, (rest, metrics) = loss_fn(params, rest, batch, rng)
        return loss if scale is None else scale(loss), (loss, rest, metrics)

    def one(params: Any, rest: Any, batch: Any, rng: jax.Array) -> Gradients:
        grads, (loss, rest, metrics) = jax.grad(objective, has_aux=True)(params, rest, batch, rng)
        return Gradients(_scattered(current(), grads), loss, rest, metrics)

    def run(params: Any, rest: Any, batch: Any, rng: jax.Array) -> Gradients:
        whole = gather_params(params)
        if micro_batches == 1:
            return one(whole, rest, batch, rng)
        parts = jax.tree.map(functools.partial(_split, current(), micro_batches), batch)
        first = jax.tree.map(lambda x: x[0], parts)
        shapes = jax.eval_shape(lambda: one(whole, rest, first, rng))
        sums = jax.tree.map(_zero, (shapes.grads, shapes.loss, shapes.metrics))

        def body(carry: Any, item: Any) -> tuple[Any, None]:
            index, part = item
            sums, rest = carry
            with micro_batch(index, micro_batches):
                got = one(whole, rest, part, rng)
            return (jax.tree.map(jnp.add, sums, (got.grads, got.loss, got.metrics)), got.rest), None

        places = jnp.arange(micro_batches, dtype=jnp.int32)
        (sums, rest), _ = lax.scan(body, (sums, rest), (places, parts))
        grads, loss, metrics = jax.tree.map(lambda x: x / np.asarray(micro_batches, x.dtype), sums)
        return Gradients(grads, loss, rest, metrics)

    return run


def gather_params(params: Any, prefix: str = "") -> Any:
    """Whole parameters, from those that the strategy divides; others as they are.

    :func:`gradients` does this. Call it where parameters are used otherwise: in an evaluation step, or at
    the start of a loss that is differentiated by ``jax.grad`` itself. Called for one layer after the other,
    inside of ``jax.checkpoint``, no more than a layer is ever there whole: its parameters are gathered again
    for the backward pass, and their gradients are scattered at once.

    Args:
      params: all parameters, or a part of them.
      prefix: path of that part, ``"layers/0"``. Default: these are all.
    """
    scope = current()
    if scope is None:
        return params
    leaves = flatten(params)

    def whole(path: str, leaf: Any) -> Any:
        part = scope.parts.get(path)
        if part is None or is_absent(leaf) or division(part.params) is None:
            return leaf
        if not scope.explicit:
            return lax.with_sharding_constraint(leaf, NamedSharding(scope.mesh, PartitionSpec()))
        return gathered_leaf(leaf, part.params) if leaf.shape != part.shape else leaf

    paths = ["/".join(filter(None, (prefix, path))) for path in leaves.paths]
    values = [whole(path, leaf) for path, leaf in zip(paths, leaves.values, strict=True)]
    return leaves.unflatten(values)


def _scattered(scope: Scope | None, grads: Any) -> Any:
    """Gradients as the strategy divides them: sums over the devices, where a step communicates itself."""
    if scope is None:
        return grads
    leaves = flatten(grads)

    def mine(path: str, grad: Any) -> Any:
        part = scope.parts.get(path)
        where = None if part is None else division(part.grads)
        if is_absent(grad) or part is None or where is None:
            return grad
        if not scope.explicit:
            return lax.with_sharding_constraint(grad, NamedSharding(scope.mesh, part.grads))
        return lax.psum_scatter(grad, where[1], scatter_dimension=where[0], tiled=True)

    return leaves.unflatten([mine(path, g) for path, g in zip(leaves.paths, leaves.values, strict=True)])


def _split(scope: Scope | None, count: int, x: jax.Array) -> jax.Array:
    """``(rows, ...)`` to ``(count, rows / count, ...)``, every device keeping its own rows."""
    shards = 1 if scope is None or scope.explicit else scope.size
    if x.ndim == 0:
        return jnp.broadcast_to(x, (count,))
    if x.shape[0] % (count * shards):
        raise ValueError(
            f"{x.shape[0]} rows cannot be run as {count} micro-batches on {shards} devices: the number of "
            f"rows must be divisible by {count * shards}."
        )
    parts = jnp.moveaxis(x.reshape(x.shape[0] // count, count, *x.shape[1:]), 1, 0)
    if shards > 1 and scope is not None:
        where = NamedSharding(scope.mesh, PartitionSpec(None, scope.axes))
        parts = lax.with_sharding_constraint(parts, where)
    return parts


def _zero(shape: Any) -> jax.Array:
    return jnp.zeros(shape.shape, shape.dtype)
