"""Batches that do not divide: filled up with rows that count nothing."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["pad_batch", "rows_of"]


def pad_batch(batch: Any, multiple: int, *, name: str = "weight", rows: int | None = None) -> dict[str, Any]:
    """Fills a batch up to a multiple of rows, and adds the weight of each row to it.

    The weights are 0 for the added rows and ``padded rows / rows`` for the others, so their mean is 1, and
    ``jnp.mean(losses * batch["weight"])`` is the mean over the real rows. It stays that however the rows
    are divided over devices and micro-batches, because it is linear: no count has to be exchanged. The
    added rows repeat the first ones, so nothing in them divides by zero.

    Args:
      batch: a dict of arrays with the batch first.
      multiple: what the number of rows is to be divisible by: the number of devices times that of
        micro-batches.
      name: of the entry that is added. Default ``"weight"``.
      rows: pad to this many rows instead, so that the last batch of an epoch has the shape of the others
        and compiles nothing.

    Returns:
      A new dict with ``name``, ``(rows,)``: float32, or float64 if an entry of the batch is.

    Raises:
      TypeError: the batch is no dict.
      ValueError: it has an entry ``name`` already, no rows, entries of different length, or more than
        ``rows``.

    Differences from PyTorch: ``DistributedSampler`` pads by repeating too, but counts the repeated rows as
    real, which biases the mean. Batch statistics (BatchNorm) are taken over all rows here as there.

    Example:
      >>> import numpy as np
      >>> from jaxopt_core.parallel import pad_batch
      >>> batch = pad_batch({"x": np.array([1.0, 2.0, 6.0])}, multiple=4)
      >>> print(batch["x"], batch["weight"].round(4), np.mean(batch["x"] * batch["weight"]).round(4))
      [1. 2. 6. 1.] [1.3333 1.3333 1.3333 0.    ] 3.0
    """
    is_dict: bool = isinstance(batch, dict)  # asked of users who have no type checker
    if not is_dict:
        raise TypeError(f"pad_batch adds an entry to a dict of arrays; got {type(batch).__name__}.")
    if name in batch:
        raise ValueError(f"The batch has an entry {name!r} already; choose another name for the weights.")
    count = rows_of(batch)
    if count == 0:
        raise ValueError("A batch without rows cannot be padded: it has no mean.")
    total = -(-count // multiple) * multiple if rows is None else rows
    if total < count or total % multiple:
        raise ValueError(
            f"Cannot pad {count} rows to {total}: expected a multiple of {multiple} that is not smaller."
        )

    def padded(x: Any) -> Any:
        if np.ndim(x) == 0 or total == count:
            return x
        repeated = np.arange(total) % count
        return x[jnp.asarray(repeated)] if isinstance(x, jax.Array) else np.asarray(x)[repeated]

    wide = any(np.dtype(x.dtype) == np.float64 for x in jax.tree.leaves(batch) if hasattr(x, "dtype"))
    dtype = jax.dtypes.canonicalize_dtype(np.float64 if wide else np.float32)
    weight = np.where(np.arange(total) < count, total / count, 0.0).astype(dtype)
    return {**jax.tree.map(padded, batch), name: weight}


def rows_of(batch: Any) -> int:
    """The length of the first axis, which all arrays of a batch share; scalars have none.

    Raises:
      ValueError: they differ, or there is no array.
    """
    lengths: dict[int, str] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(batch):
        if np.ndim(leaf) > 0:
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            lengths.setdefault(np.shape(leaf)[0], name)
    if len(lengths) != 1:
        shown = ", ".join(f"{name!r} has {n}" for n, name in lengths.items()) or "there is no array"
        raise ValueError(f"Expected a batch of arrays with the same number of rows: {shown}.")
    return next(iter(lengths))
