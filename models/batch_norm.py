"""Batch normalisation with PyTorch's statistics."""

from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

from jaxopt_core.models.norms import widened

__all__ = ["BatchNorm", "BatchNorm1d", "BatchNorm2d", "convert_sync_batchnorm"]

Model = TypeVar("Model", bound=nnx.Module)


class BatchNorm(nnx.Module):
    """Batch normalisation over all axes but the last, as ``torch.nn.BatchNorm1d`` to ``3d``.

    In training mode ``x`` is normalised with the batch's mean and biased variance, and the running
    statistics move towards them::

        mean <- (1 - momentum) * mean + momentum * batch_mean
        var  <- (1 - momentum) * var  + momentum * batch_var * n / (n - 1)

    with ``n`` values per channel. In evaluation mode the running statistics normalise. Statistics are
    computed in float32 where ``x`` is narrower; the result has the dtype of ``x``.

    Source: Ioffe and Szegedy, "Batch Normalization", 2015, algorithms 1 and 2.

    Args:
        num_features: channels, the length of the last axis.
        eps: added to the variance. Default 1e-5.
        momentum: weight of the new value; None for the average over all batches so far. Default 0.1.
        affine: learn ``scale`` and ``bias`` (PyTorch's ``weight`` and ``bias``). Default True.
        track_running_stats: keep ``mean``, ``var`` and ``num_batches_tracked``. Without them the batch's
            own statistics are used in evaluation too. Default True.
        axis_name: a named axis of ``shard_map``, ``vmap`` or ``pmap``, or several, over which the
            batch's statistics are averaged, as ``torch.nn.SyncBatchNorm`` does over processes. Under
            ``jit`` with a sharded batch nothing is needed: the batch is one array. Default None.
        param_dtype: of parameters and statistics. Default float32.
        rngs: as every layer takes it; nothing is drawn.

    Raises:
        ValueError: ``eps`` is not positive; the input has another number of channels or, in training
            mode, one value per channel only.

    Differences from ``flax.nnx.BatchNorm``: the running variance is the unbiased one; ``momentum``
    weighs the new value (Flax's 0.99 is PyTorch's 0.01); batches are counted.

    Example:
        >>> norm = BatchNorm(2)
        >>> y = norm(jnp.array([[1.0, 5.0], [3.0, 5.0]]))
        >>> print(y[:, 0].round(2), norm.var[...].round(2))
        [-1.  1.] [1.1 0.9]
    """

    _ranks: tuple[int, ...] = ()

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        *,
        axis_name: str | tuple[str, ...] | None = None,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs | None = None,
    ) -> None:
        del rngs
        if not eps > 0:
            raise ValueError(f"batch_norm eps must be positive, but got {eps}")
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.axis_name = axis_name
        self.use_running_average = False
        shape = (num_features,)
        self.scale: Any = nnx.Param(jnp.ones(shape, param_dtype)) if affine else nnx.data(None)
        self.bias: Any = nnx.Param(jnp.zeros(shape, param_dtype)) if affine else nnx.data(None)
        self.mean: Any = nnx.data(None)
        self.var: Any = nnx.data(None)
        self.num_batches_tracked: Any = nnx.data(None)
        if track_running_stats:
            self.mean = nnx.BatchStat(jnp.zeros(shape, param_dtype))
            self.var = nnx.BatchStat(jnp.ones(shape, param_dtype))
            self.num_batches_tracked = nnx.BatchStat(jnp.zeros((), jnp.int32))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises ``(N, ..., num_features)``; ``train()`` and ``eval()`` choose the statistics."""
        self._check(x)
        wide = widened(x)
        if self.use_running_average and self.mean is not None:
            mean, var = self.mean[...].astype(wide.dtype), self.var[...].astype(wide.dtype)
        else:
            mean, var, n = self._batch_statistics(wide)
            if self.mean is not None:
                self._track(mean, var * (n / (n - 1)))
        factor = jax.lax.rsqrt(var + self.eps)
        if self.scale is not None:
            factor = factor * self.scale[...].astype(wide.dtype)
        y = (wide - _as(wide, mean)) * _as(wide, factor)
        if self.bias is not None:
            y = y + _as(wide, self.bias[...].astype(wide.dtype))
        return y.astype(x.dtype)

    def _batch_statistics(self, x: jax.Array) -> tuple[jax.Array, jax.Array, int]:
        axes = tuple(range(x.ndim - 1))
        n = x.size // self.num_features
        mean = jnp.mean(x, axes)
        if self.axis_name is not None:
            n *= jax.lax.axis_size(self.axis_name)
            mean = jax.lax.pmean(mean, self.axis_name)
        if n <= 1:
            raise ValueError(
                f"Expected more than 1 value per channel when training, got input size {x.shape}: use a "
                f"larger batch, or eval()"
            )
        # About the mean that has been found: the mean of squares less the square of the mean cancels.
        var = jnp.mean(jnp.square(x - _as(x, mean)), axes)
        if self.axis_name is not None:
            var = jax.lax.pmean(var, self.axis_name)
        return mean, var, n

    def _track(self, mean: jax.Array, var: jax.Array) -> None:
        count = self.num_batches_tracked[...] + 1
        self.num_batches_tracked[...] = count
        for running, new in ((self.mean, mean), (self.var, var)):
            old = running[...]
            weight = 1 / count.astype(old.dtype) if self.momentum is None else self.momentum
            running[...] = (1 - weight) * old + weight * jax.lax.stop_gradient(new).astype(old.dtype)

    def _check(self, x: jax.Array) -> None:
        if self._ranks and x.ndim not in self._ranks:
            ranks = " or ".join(f"{rank}D" for rank in self._ranks)
            raise ValueError(f"expected {ranks} input (got {x.ndim}D input)")
        if x.shape[-1] != self.num_features:
            raise ValueError(
                f"expected {self.num_features} channels in the last axis, got input size {x.shape}: "
                f"channels come last here, not second as in PyTorch"
            )

    def set_view(self, use_running_average: bool | None = None) -> None:
        """Called by ``nnx.view``, which returns a model in training or evaluation mode."""
        if use_running_average is not None:
            self.use_running_average = use_running_average


class BatchNorm1d(BatchNorm):
    """:class:`BatchNorm` of ``(N, C)`` or ``(N, L, C)``, as ``torch.nn.BatchNorm1d``.

    PyTorch's input is ``(N, C, L)``.

    Example:
        >>> BatchNorm1d(3)(jnp.ones((4, 5, 3))).shape
        (4, 5, 3)
    """

    _ranks = (2, 3)


class BatchNorm2d(BatchNorm):
    """:class:`BatchNorm` of images ``(N, H, W, C)``, as ``torch.nn.BatchNorm2d`` of ``(N, C, H, W)``.

    Example:
        >>> BatchNorm2d(3)(jnp.ones((2, 4, 4, 3))).shape
        (2, 4, 4, 3)
    """

    _ranks = (4,)


def convert_sync_batchnorm(model: Model, axis_name: str | tuple[str, ...]) -> Model:
    """Synchronises every :class:`BatchNorm` in a model, as the method of ``torch.nn.SyncBatchNorm``.

    Args:
        model: changed in place.
        axis_name: the named axis or axes over which statistics are averaged.

    Returns:
        The model.

    Example:
        >>> model = convert_sync_batchnorm(nnx.List([BatchNorm(3)]), "data")
        >>> model[0].axis_name
        'data'
    """
    for _, module in nnx.iter_modules(model):
        if isinstance(module, BatchNorm):
            module.axis_name = axis_name
    return model


def _as(x: jax.Array, channels: jax.Array) -> jax.Array:
    """``(C,)`` with the rank of ``x``."""
    return channels.reshape((1,) * (x.ndim - 1) + channels.shape)
