"""Batches of arrays that lie in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxopt_core.data.position import Batch, Position, rows_of_process

__all__ = ["Arrays", "epoch_order"]


class Arrays:
    """Arrays in memory as shuffled batches of constant shape.

    What ``DataLoader(TensorDataset(...))`` is in PyTorch, without workers: one ``numpy.take`` a batch is
    faster than any of them. Batches are NumPy arrays; :func:`~jaxopt_core.data.prefetch` puts them
    on devices ahead of time.

    The order of epoch ``e`` is a function of ``(seed, e)`` alone, which makes a state two numbers and lets
    any process find its rows by itself. The rows of the processes, one after another, are the batch that
    one process alone would read.

    Args:
        arrays: name to array, examples along the first axis, as many in each; a memory-mapped array
            is read as it is drawn.
        batch_size: examples in a batch, over all processes.
        seed: of the order. Default 0.
        shuffle: anew in every epoch. Default True; False keeps the order of the arrays.
        drop_last: leave out the last batch when it is not full. By default it is filled up with examples
            from its own beginning (zeros might be no valid input), and every batch has a ``"mask"``,
            bool of shape ``(batch,)``, that is False for what fills up.
        process_index: which process reads. Default 0.
        process_count: among how many the rows are shared. Default 1.

    Raises:
        ValueError: no or unequal numbers of examples, an array named ``"mask"`` beside the one that is
            made, an impossible batch size, or no batch in an epoch.

    Example:
        >>> data = Arrays({"x": np.arange(5)}, batch_size=2, shuffle=False)
        >>> for batch in data:
        ...     print(batch["x"], batch["mask"])
        [0 1] [ True  True]
        [2 3] [ True  True]
        [4 4] [ True False]
        >>> data.state()
        {'epoch': 1, 'batch': 0, 'seed': 0, 'shuffle': False, 'batch_size': 2, 'examples': 5}
    """

    def __init__(
        self,
        arrays: Mapping[str, Any],
        batch_size: int,
        *,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = False,
        process_index: int = 0,
        process_count: int = 1,
    ) -> None:
        self.arrays = {name: np.asanyarray(array) for name, array in arrays.items()}
        self.examples = _count_examples(self.arrays)
        if "mask" in self.arrays and not drop_last:
            raise ValueError('the name "mask" is taken: rename the array, or give drop_last=True')
        self.batch_size, self.seed, self.shuffle, self.drop_last = batch_size, seed, shuffle, drop_last
        self._rows = rows_of_process(batch_size, process_index, process_count)
        batches = self.examples // batch_size if drop_last else -(-self.examples // batch_size)
        if batches == 0:
            raise ValueError(
                f"{self.examples} examples do not fill a batch of {batch_size}: "
                f"give a smaller batch_size, or drop_last=False"
            )
        self._position = Position(
            batches, seed=seed, shuffle=shuffle, batch_size=batch_size, examples=self.examples
        )

    def __len__(self) -> int:
        """Batches in an epoch."""
        return self._position.batches

    def __iter__(self) -> Iterator[Batch]:
        """The rest of the epoch after a :meth:`restore`, else the whole of it."""
        epoch, first = self._position.begin()
        order = epoch_order(self.examples, epoch, seed=self.seed, shuffle=self.shuffle)
        for index in range(first, len(self)):
            batch = self._take(order[index * self.batch_size : (index + 1) * self.batch_size])
            self._position.drawn(epoch, index)
            yield batch

    def state(self) -> dict[str, Any]:
        """The position behind the batch that was drawn last."""
        return self._position.state()

    def restore(self, state: dict[str, Any]) -> None:
        """Lets the next iteration go on behind ``state``; raises if it is of other data."""
        self._position.restore(state)

    def _take(self, chosen: NDArray[np.int64]) -> Batch:
        # numpy.resize repeats from the beginning.
        rows = np.resize(chosen, self.batch_size)[self._rows]
        batch = {name: np.take(array, rows, axis=0) for name, array in self.arrays.items()}
        if not self.drop_last:
            batch["mask"] = (np.arange(self.batch_size) < len(chosen))[self._rows]
        return batch


def epoch_order(examples: int, epoch: int, *, seed: int, shuffle: bool) -> NDArray[np.int64]:
    """The order in which an epoch, counted from 0, goes through the examples."""
    if not shuffle:
        return np.arange(examples)
    return np.random.default_rng([seed, epoch]).permutation(examples)


def _count_examples(arrays: Mapping[str, NDArray[Any]]) -> int:
    if not arrays:
        raise ValueError("expected at least one array, got none")
    for name, array in arrays.items():
        if array.ndim == 0:
            raise ValueError(f"{name!r}: expected examples along the first axis, got a scalar")
    counts = {name: len(array) for name, array in arrays.items()}
    if len(set(counts.values())) > 1:
        raise ValueError(f"expected as many examples in each array, got {counts}")
    examples = next(iter(counts.values()))
    if examples == 0:
        raise ValueError(f"expected at least one example, got arrays of none: {sorted(arrays)}")
    return examples
