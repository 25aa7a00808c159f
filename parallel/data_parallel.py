"""Data parallelism in three ways, for one step function."""

from __future__ import annotations

import jax
from jax.sharding import Mesh

from jaxopt_core.parallel.rules import Strategy
from jaxopt_core.parallel.steps import ParallelStep, StepFn

__all__ = ["data_parallel", "data_parallel_pmap", "data_parallel_shard_map"]


def data_parallel(
    step_fn: StepFn,
    mesh: Mesh,
    strategy: Strategy | None = None,
    *,
    donate: bool = False,
    pad: str | None = None,
    trains: bool = True,
) -> ParallelStep:
    """Compiles a training step for many devices, in the global view.

    The step is written for the whole batch and the compiler (``jax.jit``) divides the work: every mean is
    over all rows, BatchNorm is synchronised, and random numbers are those of one device.

    Args:
      step_fn: ``(state, batch) -> (state, metrics)``, as :func:`jaxopt_core.training.make_step` makes it.
        ``state`` is a pytree; to divide it, it needs ``params`` and ``opt_state``. Every array of the batch
        has its rows first; scalars are given to all.
      mesh: as :func:`~jaxopt_core.parallel.mesh` makes it. The batch is divided over ``data`` and ``fsdp``.
      strategy: :func:`~jaxopt_core.parallel.replicate` (the default),
        :func:`~jaxopt_core.parallel.zero1`, :func:`~jaxopt_core.parallel.zero2` or
        :func:`~jaxopt_core.parallel.fsdp`.
      donate: let a step overwrite the state that it is given, which saves its memory. Default False.
      pad: name of the entry that holds the weights of the rows; batches that do not divide are then filled
        up by :func:`~jaxopt_core.parallel.pad_batch`. Default None: such a batch is an error.
      trains: False for a step that updates nothing, such as an evaluation. Default True.

    Returns:
      A :class:`~jaxopt_core.parallel.ParallelStep`.

    Raises:
      ValueError: when called: the batch does not divide; the step never averages its gradients
        (``shard_map`` and ``pmap``), or never reads the weights of a padded batch.

    Example:
      >>> import jax, jax.numpy as jnp, jaxopt_core as jo
      >>> from jaxopt_core.parallel import data_parallel, mesh, synchronized, zero1
      >>> from jaxopt_core.training import init_state, make_step
      >>> def loss_fn(params, rest, batch, rng):
      ...     return jnp.mean((batch["x"] @ params["w"] - batch["y"]) ** 2), (rest, {})
      >>> tx = synchronized(jo.adamw(lr=0.1))
      >>> many = mesh()
      >>> step = data_parallel(make_step(loss_fn, tx), many, zero1())
      >>> state = step.place(init_state({"w": jnp.ones((8, 2))}, {}, tx))
      >>> state, metrics = step(state, {"x": jnp.ones((16, 8)), "y": jnp.zeros((16, 2))})
      >>> slot = state.opt_state.inner_state.slots["exp_avg"]["w"]
      >>> print(f"{metrics['loss']:.1f}", slot.sharding.is_fully_replicated == (many.size == 1))
      64.0 True
    """
    return ParallelStep(step_fn, mesh, strategy, "jit", donate=donate, pad=pad, trains=trains)


def data_parallel_shard_map(
    step_fn: StepFn,
    mesh: Mesh,
    strategy: Strategy | None = None,
    *,
    donate: bool = False,
    pad: str | None = None,
    trains: bool = True,
) -> ParallelStep:
    """Compiles a training step for many devices, with explicit collectives.

    The step sees one device's rows, as a rank of PyTorch does, and communicates through
    :func:`~jaxopt_core.parallel.synchronized`, which is all that must be in it. Metrics are averaged over
    the devices, and what else the state holds beside ``params`` and ``opt_state`` (running statistics) is the
    first device's, as DDP broadcasts buffers.

    Use it for what the compiler does not do by itself: compressed gradients, one all-reduce for several
    micro-batches, reduce-scatter, BatchNorm with local statistics.

    Args:
      step_fn: as for :func:`data_parallel`. A metric must be a mean; of a count return
        :func:`~jaxopt_core.parallel.total`.
      mesh: as for :func:`data_parallel`.
      strategy: as for :func:`data_parallel`.
      donate: as for :func:`data_parallel`.
      pad: as for :func:`data_parallel`.
      trains: as for :func:`data_parallel`.

    Returns:
      A :class:`~jaxopt_core.parallel.ParallelStep`.

    Raises:
      ValueError: as :func:`data_parallel`.
      TypeError: a metric is an integer.

    Example:
      See :func:`~jaxopt_core.parallel.synchronized`.
    """
    return ParallelStep(step_fn, mesh, strategy, "shard_map", donate=donate, pad=pad, trains=trains)


def data_parallel_pmap(
    step_fn: StepFn, mesh: Mesh, *, donate: bool = False, pad: str | None = None, trains: bool = True
) -> ParallelStep:
    """Compiles a training step for many devices by ``jax.pmap``, for code that is written for it.

    The step sees what it sees under :func:`data_parallel_shard_map`, on an axis ``data``. State and batch go
    in and come out as arrays without a device axis. ``jax.pmap`` is ``jit(shard_map)`` today, so there is no
    reason to begin with it.

    Args:
      step_fn: as for :func:`data_parallel_shard_map`.
      mesh: with all devices of one process along ``data``.
      donate: as for :func:`data_parallel`.
      pad: as for :func:`data_parallel`.
      trains: as for :func:`data_parallel`.

    Returns:
      A :class:`~jaxopt_core.parallel.ParallelStep`.

    Raises:
      ValueError: the mesh has another axis of more than one device, or devices of other processes.

    Example:
      See :func:`~jaxopt_core.parallel.total`.
    """
    if mesh.shape.get("data") != mesh.size or jax.process_count() > 1:
        raise ValueError(
            f"pmap has one axis and one process: expected a mesh with all devices along 'data', got "
            f"{dict(mesh.shape)}. Use data_parallel_shard_map."
        )
    return ParallelStep(step_fn, mesh, None, "pmap", donate=donate, pad=pad, trains=trains)
