"""One process of several: trains the bowls in each strategy, and writes what rank 0 has at the end.

``python -m tests.parallel.worker RANK PROCESSES PORT OUT``
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxopt_core as jo
from jaxopt_core.parallel import (
    assert_replicas_equal,
    data_parallel,
    data_parallel_shard_map,
    fsdp,
    mesh,
    synchronized,
    zero1,
)
from tests.parallel.problems import batches, bowl_loss, make_step, run, start

__all__ = ["CASES", "names", "train"]

CASES = {
    "replicate": (data_parallel, None),
    "zero1": (data_parallel_shard_map, zero1()),
    "fsdp": (data_parallel, fsdp()),
}


def params() -> Any:
    rng = np.random.default_rng(7)
    return {"a": {"kernel": jnp.asarray(rng.normal(size=(16, 8))), "bias": jnp.zeros(3)}}


def train(wrap: Any, data: Any) -> tuple[Any, list[float]]:
    """The run of every case; ``wrap`` makes a step of many devices of one."""
    tx = synchronized(jo.adamw(1e-2))
    return run(wrap(make_step(bowl_loss, tx)), start(params(), tx), data)


def names(state: Any) -> dict[str, Any]:
    """Parameters and slots by their paths."""
    kept = {"params": state["params"], "slots": state["opt_state"].inner_state.slots}
    leaves = jax.tree_util.tree_leaves_with_path(kept)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def main() -> None:
    rank, processes, port, out = sys.argv[1:]
    jax.config.update("jax_enable_x64", True)
    jax.distributed.initialize(f"127.0.0.1:{port}", int(processes), int(rank), initialization_timeout=60)
    here = mesh()
    rows = 32 // int(processes)
    mine = slice(rows * int(rank), rows * (int(rank) + 1))
    data = [{k: x[mine] for k, x in batch.items()} for batch in batches(dtype=np.float64)]
    results: dict[str, Any] = {}
    for case, (way, strategy) in CASES.items():
        state, losses = train(lambda step, way=way, s=strategy: way(step, here, s), data)
        assert_replicas_equal(state)
        whole = jax.jit(lambda x: x, out_shardings=jax.NamedSharding(here, jax.P()))
        for name, leaf in names(state).items():
            results[f"{case}/{name}"] = np.asarray(whole(leaf).addressable_data(0))
        results[f"{case}/losses"] = np.asarray(losses)
    if rank == "0":
        np.savez(Path(out), **results)
    jax.distributed.shutdown()


if __name__ == "__main__":
    main()
