"""Batches from anything that gives them: a list, a PyTorch DataLoader, a grain pipeline."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxopt_core.data.position import Batch

__all__ = ["FromIterable", "fill_up"]


class FromIterable:
    """Gives the batches of a list, a PyTorch ``DataLoader`` or a grain dataset as dicts of NumPy arrays.

    A state counts epochs and batches; after :meth:`restore` as many batches are drawn and thrown away. That
    goes on bitwise if the iterable gives the same batches again: a list does, and a ``DataLoader`` does
    that does not shuffle. One that shuffles by a generator starts, in a new process, with the order of the
    first epoch again. The iterators of grain's datasets and of its ``DataLoader`` have a state of their own,
    which is kept instead and is exact.

    Args:
        batches: what can be iterated over anew in every epoch. A batch is a mapping, or a tuple or list
            for which ``names`` says what is in it; NumPy's arrays, JAX's or PyTorch's.
        names: of the parts of a batch that is a tuple or list.
        pad: fill up a last batch smaller than the first one with its own examples, and add a
            ``"mask"`` to every batch, as :class:`~jaxopt_core.data.Arrays` does. Default False.

    Raises:
        TypeError: an iterator is given, which would be at its end after one epoch; a batch is no mapping and
            there are no names.

    Example:
        >>> loader = [(np.ones((4, 2)), np.zeros(4)), (np.ones((3, 2)), np.zeros(3))]
        >>> for batch in FromIterable(loader, names=["x", "y"], pad=True):
        ...     print(batch["x"].shape, batch["mask"])
        (4, 2) [ True  True  True  True]
        (4, 2) [ True  True  True False]
    """

    def __init__(
        self, batches: Iterable[Any], names: Sequence[str] | None = None, *, pad: bool = False
    ) -> None:
        if isinstance(batches, Iterator):
            raise TypeError(
                f"expected what can be iterated over anew in every epoch, got a {type(batches).__name__}: "
                f"give the list, the DataLoader or the dataset itself, or list(...) of the iterator"
            )
        self.batches, self.names, self.pad = batches, names, pad
        self._state: dict[str, Any] = {"epoch": 0, "batch": 0}
        self._restored = False

    def __len__(self) -> int:
        """Batches in an epoch; raises TypeError if what was given does not know."""
        return len(self.batches)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Batch]:
        """The rest of the epoch after a :meth:`restore`, else the whole of it."""
        start = self._state if self._restored else {**self._state, "batch": 0}
        self._restored = False
        source: Any = iter(self.batches)
        has_state = hasattr(source, "get_state") and hasattr(source, "set_state")
        if start["batch"] and "inner" in start:
            inner = start["inner"]
            source.set_state(inner.encode() if isinstance(inner, str) else inner)
        elif start["batch"]:
            source = islice(source, start["batch"], None)
        index, size = start["batch"], start.get("size")
        following = next(source, None)
        while following is not None:
            batch = self._convert(following)
            size = len(next(iter(batch.values()))) if size is None else size
            index += 1
            state = {"epoch": start["epoch"], "batch": index, "size": size}
            if has_state:
                inner = source.get_state()
                # A grain DataLoader's is JSON as bytes, which JSON cannot hold.
                state["inner"] = inner.decode() if isinstance(inner, bytes) else inner
            following = next(source, None)
            self._state = state if following is not None else {"epoch": start["epoch"] + 1, "batch": 0}
            yield fill_up(batch, size) if self.pad else batch

    def state(self) -> dict[str, Any]:
        """The position behind the batch that was drawn last."""
        return dict(self._state)

    def restore(self, state: dict[str, Any]) -> None:
        """Lets the next iteration go on behind ``state``."""
        if not {"epoch", "batch"} <= state.keys():
            raise ValueError(f"not a state of this data: expected epoch and batch, found {sorted(state)}")
        self._state, self._restored = dict(state), True

    def _convert(self, batch: Any) -> Batch:
        if isinstance(batch, Mapping):
            return {name: np.asarray(part) for name, part in batch.items()}
        if self.names is None or not isinstance(batch, tuple | list):
            raise TypeError(
                f"expected batches that are mappings, or tuples and names for their parts; "
                f"got {type(batch).__name__} and names={self.names}"
            )
        if len(batch) != len(self.names):
            raise ValueError(f"expected batches of {list(self.names)}, got one with {len(batch)} parts")
        return {name: np.asarray(part) for name, part in zip(self.names, batch, strict=True)}


def fill_up(batch: Batch, size: int) -> Batch:
    """Repeats examples from the beginning up to ``size``, and adds the mask that tells them apart.

    Raises:
        ValueError: the batch is larger than ``size``, or its arrays have unequal numbers of examples.
    """
    counts = {len(part) for part in batch.values()}
    count = min(counts)
    if len(counts) > 1 or not 0 < count <= size:
        shapes = {name: part.shape for name, part in batch.items()}
        raise ValueError(f"expected a batch of 1 to {size} examples, as the first has; got {shapes}")
    rows = np.arange(size) % count

    def repeat(part: NDArray[Any]) -> NDArray[Any]:
        return part if count == size else np.take(part, rows, axis=0)

    mask = batch.get("mask", np.ones(count, bool))
    filled = {name: repeat(part) for name, part in batch.items()}
    return {**filled, "mask": repeat(mask) & (np.arange(size) < count)}
