"""A model's outputs over a whole data set, without what only fills up batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["collect"]


def collect(
    predict: Callable[[Any], Any], data: Iterable[Mapping[str, Any]], keep: Sequence[str] = ()
) -> dict[str, NDArray[Any]]:
    """Runs a model over batches and puts outputs together, example by example.

    For scores that need all examples at once (ROC, bootstrap) and for pictures of examples.

    Args:
        predict: from a batch to outputs, an array or a dict of arrays, examples along the first axis.
            Compile it: ``jax.jit``.
        data: batches, dicts of arrays; those with a ``"mask"`` of shape ``(batch,)`` lose what it hides.
        keep: names in a batch that are wanted beside the outputs, such as the labels.

    Returns:
        ``"output"``, or what ``predict`` calls its outputs, and what is kept, each of shape
        ``(examples, ...)``.

    Raises:
        ValueError: there is no batch.

    Example:
        >>> from jaxopt_core.data import Arrays
        >>> data = Arrays({"x": np.arange(5.0), "label": np.arange(5) % 2}, batch_size=2, shuffle=False)
        >>> collect(lambda batch: 10 * batch["x"], data, keep=["label"])
        {'output': array([ 0., 10., 20., 30., 40.]), 'label': array([0, 1, 0, 1, 0])}
    """
    parts: dict[str, list[NDArray[Any]]] = {}
    for batch in data:
        outputs = predict(batch)
        named = dict(outputs) if isinstance(outputs, Mapping) else {"output": outputs}
        named.update({name: batch[name] for name in keep})
        mask = batch.get("mask")
        for name, value in named.items():
            array = np.asarray(value)
            parts.setdefault(name, []).append(array if mask is None else array[np.asarray(mask, bool)])
    if not parts:
        raise ValueError("expected at least one batch, got none")
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}
