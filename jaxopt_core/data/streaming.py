"""Batches of examples that are read when they are needed, through grain."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np

from jaxopt_core.data.position import Batch, Position, rows_of_process
from jaxopt_core.extras import needs_extra

__all__ = ["RandomAccess", "Stream"]

Transform = Callable[[dict[str, Any], np.random.Generator], dict[str, Any]]


class RandomAccess(Protocol):
    """What can be streamed: a PyTorch map-style ``Dataset`` of dicts is one, and so is a list of dicts."""

    def __len__(self) -> int:
        """How many examples there are."""
        ...

    def __getitem__(self, index: int, /) -> dict[str, Any]:
        """One example: name to array or number, of one shape for all."""
        ...


class Stream:
    """Examples read one by one by grain's threads, as shuffled batches of constant shape.

    For data that does not fit in memory or must be decoded: :class:`~jaxopt_core.data.Arrays` is a
    hundred times faster for data that does. Interface, order of the processes' rows, ``"mask"`` and
    state are the same as there. The randomness of ``transform`` depends on the seed and on how many
    examples came before over all epochs, not on processes or threads: 1, 2 and 4 processes see the same
    augmented examples, and a resumed run sees those that it would have seen.

    Args:
        source: examples by index; grain's sources, ``MapDataset`` and PyTorch's map-style datasets fit.
        batch_size: examples in a batch, over all processes.
        seed: of the order and of ``transform``. Default 0.
        shuffle: anew in every epoch. Default True.
        drop_last: leave out a last batch that is not full, and ``"mask"``. Default False.
        transform: ``(example, numpy.random.Generator) -> example``. Default None.
        threads: that read. Default 8.
        read_ahead: batches that wait at most. Default 8, so that each thread has one to make.
        process_index: which process reads. Default 0.
        process_count: among how many the rows are shared. Default 1.

    Raises:
        MissingExtraError: grain is not installed.
        ValueError: an impossible batch size, or no batch in an epoch.

    Example:
        >>> examples = [{"x": np.float32(i)} for i in range(5)]
        >>> stream = Stream(examples, batch_size=2, shuffle=False)
        >>> for batch in stream:
        ...     print(batch["x"], batch["mask"])
        [0. 1.] [ True  True]
        [2. 3.] [ True  True]
        [4. 4.] [ True False]
    """

    def __init__(
        self,
        source: RandomAccess,
        batch_size: int,
        *,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = False,
        transform: Transform | None = None,
        threads: int = 8,
        read_ahead: int = 8,
        process_index: int = 0,
        process_count: int = 1,
    ) -> None:
        with needs_extra("data"):
            import grain

        self.batch_size, self.drop_last = batch_size, drop_last
        self._rows = rows_of_process(batch_size, process_index, process_count)
        self.examples = len(source)
        batches = self.examples // batch_size if drop_last else -(-self.examples // batch_size)
        if batches == 0:
            raise ValueError(
                f"{self.examples} examples do not fill a batch of {batch_size}: "
                f"give a smaller batch_size, or drop_last=False"
            )
        self._position = Position(
            batches, seed=seed, shuffle=shuffle, batch_size=batch_size, examples=self.examples
        )
        self._reading = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=read_ahead)
        # An index beyond the length is of a later epoch, which grain shuffles and augments by itself.
        ordered = grain.MapDataset.source(source).seed(seed)
        ordered = ordered.shuffle() if shuffle else ordered
        self._ordered = ordered if transform is None else ordered.random_map(transform)

    def __len__(self) -> int:
        """Batches in an epoch."""
        return self._position.batches

    def __iter__(self) -> Iterator[Batch]:
        """The rest of the epoch after a :meth:`restore`, else the whole of it."""
        import grain

        epoch, first = self._position.begin()
        rows = grain.MapDataset.source(_Rows(self, epoch, first))
        local = self._rows.stop - self._rows.start
        # Batches are made by the threads: one example at a time costs several times as much.
        batches = iter(rows.batch(local).to_iter_dataset(self._reading))
        for index, batch in enumerate(batches, first):
            self._position.drawn(epoch, index)
            yield batch

    def state(self) -> dict[str, Any]:
        """The position behind the batch that was drawn last."""
        return self._position.state()

    def restore(self, state: dict[str, Any]) -> None:
        """Lets the next iteration go on behind ``state``; raises if it is of other data."""
        self._position.restore(state)


class _Rows:
    """One process's rows of an epoch, from some batch on."""

    def __init__(self, stream: Stream, epoch: int, first: int) -> None:
        self.stream, self.epoch, self.first = stream, epoch, first
        self.local = stream._rows.stop - stream._rows.start

    def __len__(self) -> int:
        return (len(self.stream) - self.first) * self.local

    def __getitem__(self, index: int) -> dict[str, Any]:
        stream = self.stream
        batch, row = divmod(index, self.local)
        start = (self.first + batch) * stream.batch_size
        row += stream._rows.start
        count = min(stream.batch_size, stream.examples - start)
        example = stream._ordered[self.epoch * stream.examples + start + row % count]
        return example if stream.drop_last else {**example, "mask": np.bool_(row < count)}
