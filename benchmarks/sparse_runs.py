"""The contenders of ``benchmarks.sparse_table``: sparse and dense Adam on an embedding table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxopt_core as jo
from benchmarks.parameter_sets import sample
from jaxopt_core.extras import needs_extra

with needs_extra("test"):
    import torch

__all__ = ["CONTENDERS", "Batches", "JaxTable", "TorchTable"]


class Batches:
    """The rows that are looked up, and their gradients: a few batches that are gone through in turn.

    Args:
      size: rows of the table.
      dim: length of a row.
      rows: how many are looked up in a step. They are drawn with repetition.
      count: batches.
    """

    def __init__(self, size: int, dim: int, rows: int, count: int = 32) -> None:
        random = np.random.default_rng(0)
        self.shape = (size, dim)
        self.ids = random.integers(size, size=(count, rows), dtype=np.int32)
        self.grads = random.standard_normal((count, rows, dim), dtype=np.float32)

    def dense(self) -> np.ndarray:
        """A gradient of the whole table."""
        return np.resize(self.grads, self.shape)


class JaxTable:
    """A table that an optimizer of this package steps; parameters and state are donated.

    Args:
      batches: the gradients.
      sparse: ``sparse_adam`` on the rows of a batch, or ``adam`` on a gradient of the whole table.
    """

    def __init__(self, batches: Batches, *, sparse: bool) -> None:
        optimizer = jo.sparse_adam() if sparse else jo.adam()

        def step(table: Any, state: Any, grad: Any) -> tuple[Any, Any]:
            if sparse:
                ids, rows = grad
                grad = jo.sparse_rows(ids, rows, num_rows=batches.shape[0])
            updates, state = optimizer.update(grad, state, table)
            return jo.apply_updates(table, updates), state

        self._step = jax.jit(step, donate_argnums=(0, 1))
        self._table = jnp.zeros(batches.shape)
        self._state = optimizer.init(self._table)
        pairs = zip(batches.ids, batches.grads, strict=True)
        self._grads: list[Any] = (
            [(jnp.array(ids), jnp.array(rows)) for ids, rows in pairs]
            if sparse
            else [jnp.array(batches.dense())]
        )
        self._steps = 0

    @property
    def state_bytes(self) -> int:
        """Bytes of state."""
        return sum(leaf.nbytes for leaf in jax.tree.leaves(self._state))

    def step(self) -> None:
        """Starts one step, with the next batch."""
        grad = self._grads[self._steps % len(self._grads)]
        self._table, self._state = self._step(self._table, self._state, grad)
        self._steps += 1

    def wait(self) -> None:
        """Waits for the table."""
        self._table.block_until_ready()

    def samples(self) -> dict[str, np.ndarray]:
        """Every row's sum, in which all the rows that were looked up show."""
        return {"table": sample(np.asarray(self._table).sum(axis=1), count=1 << 30)}

    def compiled(self) -> Any:
        """The program of a step."""
        return self._step.lower(self._table, self._state, self._grads[0]).compile()


class TorchTable:
    """A table that an optimizer of PyTorch steps."""

    def __init__(self, batches: Batches, *, sparse: bool) -> None:
        self._cuda = torch.cuda.is_available()
        device = "cuda" if self._cuda else "cpu"
        self._table = torch.zeros(batches.shape, device=device, requires_grad=True)
        self._optimizer: torch.optim.Optimizer = (
            torch.optim.SparseAdam([self._table])
            if sparse
            else torch.optim.Adam([self._table], lr=1e-3, fused=True)
        )
        pairs = zip(batches.ids, batches.grads, strict=True)
        self._grads = (
            [
                torch.sparse_coo_tensor(
                    torch.from_numpy(ids.astype(np.int64))[None],
                    torch.from_numpy(rows),
                    batches.shape,
                    device=device,
                    check_invariants=False,
                )
                for ids, rows in pairs
            ]
            if sparse
            else [torch.from_numpy(batches.dense()).to(device)]
        )
        self._steps = 0

    @property
    def state_bytes(self) -> int:
        """Bytes of state."""
        slots = [slot for slots in self._optimizer.state.values() for slot in slots.values()]
        return sum(slot.nbytes for slot in slots if isinstance(slot, torch.Tensor))

    def step(self) -> None:
        """One step, with the next batch."""
        self._table.grad = self._grads[self._steps % len(self._grads)]
        self._optimizer.step()
        self._steps += 1

    def wait(self) -> None:
        """Waits for the GPU."""
        if self._cuda:
            torch.cuda.synchronize()

    def samples(self) -> dict[str, np.ndarray]:
        """Every row's sum."""
        return {"table": sample(self._table.detach().cpu().numpy().sum(axis=1), count=1 << 30)}


CONTENDERS: dict[str, Callable[[Batches], Any]] = {
    "ours, sparse_adam": lambda batches: JaxTable(batches, sparse=True),
    "torch SparseAdam": lambda batches: TorchTable(batches, sparse=True),
    "ours, adam on a dense gradient": lambda batches: JaxTable(batches, sparse=False),
    "torch Adam fused on a dense gradient": lambda batches: TorchTable(batches, sparse=False),
}
