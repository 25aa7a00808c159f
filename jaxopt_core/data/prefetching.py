"""Batches on devices before they are asked for."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import Any

import jax

from jaxopt_core.data.position import Batch, Batches

__all__ = ["Prefetch", "prefetch"]

_END = object()


def prefetch(data: Batches, size: int = 2, *, sharding: jax.sharding.Sharding | None = None) -> Prefetch:
    """Reads ahead in a thread and puts the batches on devices.

    The state is that of the batch that was handed out, not of what was read ahead.

    Args:
        data: :class:`~jaxopt_core.data.Arrays` or another of :mod:`jaxopt_core.data`'s.
        size: batches that wait on the devices at most. Default 2, as in PyTorch's ``prefetch_factor``.
        sharding: how a batch lies on the devices, such as ``NamedSharding(mesh, P("data"))``; with several
            processes each gives its own rows. Default None: the default device.

    Returns:
        The same batches, in the same order, as JAX's arrays, with ``state``, ``restore`` and ``len``.

    Raises:
        ValueError: ``size`` is less than 1.

    Example:
        >>> import numpy as np
        >>> from jaxopt_core.data import Arrays
        >>> ahead = prefetch(Arrays({"x": np.arange(6)}, batch_size=2))
        >>> batch = next(iter(ahead))
        >>> type(batch["x"]).__name__, ahead.state()["batch"]
        ('ArrayImpl', 1)
    """
    return Prefetch(data, size, sharding=sharding)


class Prefetch:
    """See :func:`prefetch`."""

    def __init__(
        self, data: Batches, size: int = 2, *, sharding: jax.sharding.Sharding | None = None
    ) -> None:
        if size < 1:
            raise ValueError(f"expected a size of at least 1, got {size}")
        if not isinstance(data, Batches):
            raise TypeError(
                f"expected data with state() and restore(), got {type(data).__name__}: "
                f"wrap it in jaxopt_core.data.FromIterable"
            )
        self.data, self.size, self.sharding = data, size, sharding
        self._state, self._restored = data.state(), False

    def __len__(self) -> int:
        """Batches in an epoch."""
        return len(self.data)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Batch]:
        """The rest of the epoch after a :meth:`restore`, else the whole of it."""
        # What was read ahead and never handed out is read again.
        self.data.restore(self._state if self._restored else {**self._state, "batch": 0})
        self._restored = False
        waiting: queue.Queue[Any] = queue.Queue(self.size)
        stopped = threading.Event()
        thread = threading.Thread(target=self._read, args=(waiting, stopped), daemon=True)
        thread.start()
        try:
            while (item := waiting.get()) is not _END:
                if isinstance(item, BaseException):
                    raise item
                batch, self._state = item
                yield batch
        finally:
            stopped.set()
            while thread.is_alive():  # it may wait for room
                _empty(waiting)
                thread.join(0.01)

    def state(self) -> dict[str, Any]:
        """The position behind the batch that was handed out last."""
        return self._state

    def restore(self, state: dict[str, Any]) -> None:
        """Lets the next iteration go on behind ``state``; raises if it is of other data."""
        self.data.restore(state)
        self._state, self._restored = state, True

    def _read(self, waiting: queue.Queue[Any], stopped: threading.Event) -> None:
        try:
            for batch in self.data:
                waiting.put((self._put(batch), self.data.state()))
                if stopped.is_set():
                    return
            waiting.put(_END)
        except BaseException as error:  # noqa: BLE001 - it is raised where the batch is asked for
            waiting.put(error)

    def _put(self, batch: Batch) -> Batch:
        if self.sharding is None:
            return jax.device_put(batch)
        make: Any = jax.make_array_from_process_local_data
        return {name: make(self.sharding, part) for name, part in batch.items()}


def _empty(waiting: queue.Queue[Any]) -> None:
    try:
        while True:
            waiting.get_nowait()
    except queue.Empty:
        pass
