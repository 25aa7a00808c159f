"""Batches in groups, one group for each dispatch, and where in the data each ends."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple

from jaxopt_core.training.dispatch import stack_batches

__all__ = ["Feed", "Group", "first_batches"]


class Group(NamedTuple):
    """The batches of one dispatch.

    Attributes:
      batches: stacked, with room for a full dispatch.
      count: how many there are.
      epoch: they are of, from 1.
      ends_epoch: whether no batch of the epoch comes after them.
      position: where the data stands after them; see :class:`Feed`.
    """

    batches: Any
    count: int  # type: ignore[assignment]  # not tuple.count
    epoch: int
    ends_epoch: bool
    position: dict[str, Any]


class Feed:
    """Draws groups of batches, epoch after epoch.

    Args:
      data: iterating over it gives the batches of an epoch: one of :mod:`jaxopt_core.data`'s, a list, a
        PyTorch ``DataLoader``, anything. What has ``state()`` and ``restore(state)`` goes on where it was
        after a resume; of anything else the batches seen already are drawn again and thrown away, which is
        exact if it gives the same ones again.
      length: room in a group.
    """

    def __init__(self, data: Iterable[Any], length: int) -> None:
        self.data, self.length = data, length
        self.epoch, self._drawn, self._ended = 1, 0, False

    @property
    def finished_epochs(self) -> int:
        """Epochs of which the last batch was drawn."""
        return self.epoch if self._ended else self.epoch - 1

    def restore(self, position: dict[str, Any]) -> None:
        """Goes on after a :attr:`Group.position`."""
        self.epoch, self._drawn, self._ended = position["epoch"], position["drawn"], position["ended"]
        if "data" in position:
            self.data.restore(position["data"])  # type: ignore[attr-defined]

    def groups(self, room: Callable[[], int]) -> Iterator[Group]:
        """Endless groups; ``room`` says how many batches the next may have."""
        if self._ended:
            self._finish_epoch()
        while True:
            batches = self._rest_of_epoch()
            batch = next(batches, None)
            if batch is None and self._drawn == 0:
                raise ValueError("expected at least one batch in an epoch of the data, found none")
            while batch is not None:
                taken: list[Any] = []
                limit = min(self.length, room())
                while batch is not None and len(taken) < limit:
                    taken.append(batch)
                    self._drawn += 1
                    inside = self._state()
                    batch = next(batches, None)
                ended = batch is None
                position = {"epoch": self.epoch, "drawn": self._drawn, "ended": ended, **inside}
                yield Group(stack_batches(taken, self.length), len(taken), self.epoch, ended, position)
            self._finish_epoch()

    def _rest_of_epoch(self) -> Iterator[Any]:
        return iter(self.data) if self._has_state() else islice(iter(self.data), self._drawn, None)

    def _finish_epoch(self) -> None:
        self.epoch, self._drawn, self._ended = self.epoch + 1, 0, False

    def _has_state(self) -> bool:
        return hasattr(self.data, "state") and hasattr(self.data, "restore")

    def _state(self) -> dict[str, Any]:
        return {"data": self.data.state()} if self._has_state() else {}  # type: ignore[attr-defined]


def first_batches(data: Iterable[Any], count: int) -> list[Any]:
    """The first batches of an epoch, fewer if it has fewer."""
    return list(islice(iter(data), count))
