"""One of two processes of ``benchmarks.scaling``: times steps of ours or of PyTorch's DDP.

``python -m benchmarks.scaling_rank KIND RANK PORT STEPS QUICK``, with KIND ``jax`` or ``torch``; rank 0
prints JSON with the times of the steps and the losses of the first three.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks.scaling_problem import LR, arrays, jax_start, jax_step, torch_model

__all__ = ["RANKS"]

RANKS = 2
CHECKED, WARM = 3, 5


def _times(step: Callable[[], float], steps: int) -> dict[str, Any]:
    """Every step ends with its loss read, so with everything before it done."""
    losses = [step() for _ in range(CHECKED)]
    for _ in range(WARM):
        step()
    times = []
    for _ in range(steps):
        begin = time.perf_counter()
        step()
        times.append(time.perf_counter() - begin)
    return {"times": times, "losses": losses}


def _jax(rank: int, port: str, steps: int, quick: bool) -> dict[str, Any]:
    os.environ |= {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1", "NPROC": "4"}
    import jax

    import jaxopt_core as jo
    from jaxopt_core.parallel import data_parallel_shard_map, mesh, synchronized

    jax.distributed.initialize(f"127.0.0.1:{port}", RANKS, rank, initialization_timeout=60)
    _, x, y = arrays(quick)
    mine = slice(rank * len(x) // RANKS, (rank + 1) * len(x) // RANKS)
    tx = synchronized(jo.adamw(LR))
    step = data_parallel_shard_map(jax_step(tx), mesh(), donate=True)
    state = step.place(jax_start(tx, quick))

    def one() -> float:
        nonlocal state
        state, metrics = step(state, {"x": x[mine], "y": y[mine]})
        loss = float(metrics["loss"])
        jax.block_until_ready(state)
        return loss

    result = _times(one, steps)
    jax.distributed.shutdown()
    return result


def _torch(rank: int, port: str, steps: int, quick: bool) -> dict[str, Any]:
    import torch

    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=RANKS
    )
    _, x, y = arrays(quick)
    mine = slice(rank * len(x) // RANKS, (rank + 1) * len(x) // RANKS)
    inputs, targets = torch.from_numpy(x[mine]), torch.from_numpy(y[mine])
    model = torch.nn.parallel.DistributedDataParallel(torch_model(quick))
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR)

    def one() -> float:
        optimizer.zero_grad()
        loss = (model(inputs) - targets).square().mean()
        loss.backward()
        optimizer.step()
        mean = loss.detach()
        torch.distributed.all_reduce(mean)
        return float(mean) / RANKS

    result = _times(one, steps)
    torch.distributed.destroy_process_group()
    return result


def main() -> None:
    """Runs one rank."""
    kind, rank, port, steps, quick = sys.argv[1:]
    run = {"jax": _jax, "torch": _torch}[kind]
    result = run(int(rank), port, int(steps), quick == "True")
    gc.collect()  # DDP's reference cycles keep Gloo's threads, which must end before the interpreter does
    if rank == "0":
        print(json.dumps(result))


if __name__ == "__main__":
    main()
