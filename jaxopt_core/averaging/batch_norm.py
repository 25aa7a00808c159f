"""Batch statistics for averaged parameters, as ``torch.optim.swa_utils.update_bn``."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["update_bn"]

Apply = Callable[..., tuple[Any, Any]]


def update_bn(
    apply: Apply, params: Any, rest: Any, data: Iterable[Any], *, statistics: str = r"(^|/)(mean|var)$"
) -> Any:
    r"""Computes the running statistics of batch normalization anew, over a pass through the data.

    Averaged parameters were never seen by a running mean and variance. As PyTorch does, this forgets them
    and averages the statistics of every batch with equal weights, whatever the momentum of the layers.

    The model is a pure function, so its momentum cannot be set for the occasion. A layer that updates
    ``r`` to ``m * r + (1 - m) * batch`` gives the batch's statistic away when ``r`` is 0, if ``m`` is known;
    and ``m`` is found by running the first batch once more, with a huge ``r``.

    Args:
      apply: ``apply(params, rest, inputs, train=True) -> (outputs, rest)``, as
        :func:`jaxopt_core.models.pure` makes it. Keep it: it is compiled once.
      params: the parameters, usually :func:`~jaxopt_core.averaging.averaged_params`.
      rest: what else the model holds, a pytree with the running statistics in it.
      data: batches: arrays, or tuples or lists whose first element is the model's input. Every other shape
        compiles once more.
      statistics: regular expression that finds the running statistics among the paths of ``rest``
        (``"bn/mean"``). Default: leaves named ``mean`` or ``var``, which Flax's batch normalization has.

    Returns:
      ``rest`` with new statistics; what else changes in training mode, such as random streams, has changed.
      A model without running statistics gets its ``rest`` back and the data is not read.

    Raises:
      ValueError: there is no batch; a statistic does not follow the batches; a given expression finds none.

    Differences from PyTorch: the variance is the layer's own estimate, which in Flax is the biased one.

    Example:
      >>> import jax.numpy as jnp, jaxopt_core as jo
      >>> def apply(params, rest, x, train):
      ...     return x * params, {"mean": 0.9 * rest["mean"] + 0.1 * x.mean()}
      >>> batches = [jnp.asarray([1.0, 3.0]), jnp.asarray([4.0, 6.0])]
      >>> rest = jo.averaging.update_bn(apply, jnp.ones(()), {"mean": jnp.zeros(())}, batches)
      >>> print(f"{rest['mean']:.4f}")
      3.5000
    """
    leaves, treedef = jax.tree_util.tree_flatten_with_path(rest)
    paths = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves]
    places = [i for i, path in enumerate(paths) if re.search(statistics, path)]
    if not places:
        if statistics != r"(^|/)(mean|var)$":
            shown = ", ".join(paths[:8])
            raise ValueError(
                f"{statistics!r} matches none of the running statistics; the paths are: {shown}."
            )
        return rest
    run = functools.partial(_run, apply, treedef, tuple(places))
    values = [leaf for _, leaf in leaves]
    means: list[jax.Array] = []
    momenta: list[float] = []
    for n, batch in enumerate(data, start=1):
        inputs = batch[0] if isinstance(batch, tuple | list) else batch
        if n == 1:
            huge = [_huge(values[i].dtype) for i in places]
            after = run(params, values, inputs, huge)
            momenta = [_momentum(paths[i], after[i], each) for i, each in zip(places, huge, strict=True)]
            means = [jnp.zeros_like(values[i]) for i in places]
        values = run(params, values, inputs, [0.0] * len(places))
        batch_means = [values[i] / (1 - m) for i, m in zip(places, momenta, strict=True)]
        means = [mean + (new - mean) / n for mean, new in zip(means, batch_means, strict=True)]
    if not means:
        raise ValueError("update_bn needs data: there was no batch to take statistics of.")
    for i, mean in zip(places, means, strict=True):
        values[i] = mean
    return jax.tree.unflatten(treedef, values)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _run(
    apply: Apply, treedef: Any, places: tuple[int, ...], params: Any, values: Any, inputs: Any, start: Any
) -> list[Any]:
    """The leaves of ``rest`` after a batch, with the statistics starting at ``start``."""
    values = list(values)
    for i, value in zip(places, start, strict=True):
        values[i] = jnp.full_like(values[i], value)
    _, rest = apply(params, jax.tree.unflatten(treedef, values), inputs, train=True)
    return jax.tree.leaves(rest)


def _huge(dtype: Any) -> float:
    # A power of two beside which a batch's own statistic is nothing: the product with m is then exact.
    return 2.0 ** (jnp.finfo(dtype).maxexp // 2)


def _momentum(path: str, after: jax.Array, start: float) -> float:
    ratio = np.asarray(after).reshape(-1)[0] / np.asarray(start, after.dtype)
    # The shortest number that rounds to it is what was written: 0.99, of which 1 - m has all its digits.
    momentum = float(str(ratio))
    if not 0.0 <= momentum < 1.0:
        raise ValueError(
            f"{path!r} does not follow the batches when apply runs with train=True: expected a running "
            f"average m * r + (1 - m) * batch with 0 <= m < 1, found m = {momentum}. Choose what is such a "
            f"statistic with statistics=..."
        )
    return momentum
