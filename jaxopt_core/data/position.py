"""Where an epoch-wise reader stands, and the rules that all readers of batches share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

__all__ = ["Batch", "Batches", "Position", "rows_of_process"]

Batch = dict[str, Any]


@runtime_checkable
class Batches(Protocol):
    """What a training loop draws from.

    Iterating gives the batches of one epoch, dicts of arrays of constant shape. :meth:`state` says what
    was drawn last, and after :meth:`restore` the next iteration goes on behind it, bitwise. A state has an
    ``"epoch"`` and a ``"batch"``; with 0 for the batch it is the start of its epoch.
    """

    def __iter__(self) -> Iterator[Batch]:
        """The batches of an epoch."""
        ...

    def state(self) -> dict[str, Any]:
        """Where the reading stands; small, and made of what JSON can hold."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on after ``state`` in the next iteration."""
        ...


class Position:
    """Counts epochs and batches for a reader.

    An iteration begins at the start of the current epoch, unless :meth:`restore` was called since the
    last one. So a look at the first batch, left with ``break``, changes nothing. When the last batch of
    an epoch is drawn, the position is the start of the next epoch.

    Args:
        batches: in an epoch.
        facts: what a state must agree on to be continued, such as the seed and the batch size.
    """

    def __init__(self, batches: int, **facts: int | bool) -> None:
        self.batches, self.facts = batches, facts
        self.epoch, self.batch, self._restored = 0, 0, False

    def begin(self) -> tuple[int, int]:
        """The epoch, and the first batch of it to be drawn."""
        if not self._restored:
            self.batch = 0
        self._restored = False
        return self.epoch, self.batch

    def drawn(self, epoch: int, batch: int) -> None:
        """Notes that a batch goes out."""
        last = batch + 1 == self.batches
        self.epoch, self.batch = (epoch + 1, 0) if last else (epoch, batch + 1)

    def state(self) -> dict[str, Any]:
        """Epoch and batch, from 0, of what is drawn next; and the facts."""
        return {"epoch": self.epoch, "batch": self.batch, **self.facts}

    def restore(self, state: dict[str, Any]) -> None:
        """Takes back a state of the same data.

        Raises:
            ValueError: it is not one, or of other data, another seed or another batch size.
        """
        missing = sorted({"epoch", "batch", *self.facts} - state.keys())
        if missing:
            raise ValueError(f"not a state of this data: {missing} missing, found {sorted(state)}")
        for name, mine in self.facts.items():
            if state[name] != mine:
                raise ValueError(
                    f"the state was saved with {name}={state[name]}, this data has {name}={mine}: "
                    f"make the data as it was, or start without the state"
                )
        if not (state["epoch"] >= 0 and 0 <= state["batch"] < self.batches):
            raise ValueError(
                f"expected an epoch of at least 0 and a batch below {self.batches}, "
                f"got {state['epoch']} and {state['batch']}"
            )
        self.epoch, self.batch, self._restored = state["epoch"], state["batch"], True


def rows_of_process(batch_size: int, process_index: int, process_count: int) -> slice:
    """The rows of each global batch that one process reads.

    They are a block, so that the processes' rows one after another are the global batch, as
    ``jax.make_array_from_process_local_data`` puts them together.

    Raises:
        ValueError: the batch does not divide, or there is no such process.

    Example:
        >>> rows_of_process(8, process_index=1, process_count=4)
        slice(2, 4, None)
    """
    if batch_size < 1:
        raise ValueError(f"batch_size should be a positive integer value, but got batch_size={batch_size}")
    if not 0 <= process_index < process_count:
        raise ValueError(
            f"expected a process_index from 0 to {process_count - 1} (process_count={process_count}), "
            f"got {process_index}"
        )
    if batch_size % process_count:
        raise ValueError(
            f"batch_size={batch_size} cannot be shared equally by {process_count} processes: "
            f"choose a multiple of {process_count}"
        )
    local = batch_size // process_count
    return slice(process_index * local, (process_index + 1) * local)
