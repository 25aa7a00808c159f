"""PyTorch's DistributedDataParallel on one rank of a Gloo group: the oracle of ``test_processes``.

``python -m tests.parallel.ddp RANK RANKS RENDEZVOUS_FILE IN OUT``; rank 0 writes parameters, buffers and
losses of a plain run and of one with ``no_sync``.
"""

from __future__ import annotations

import contextlib
import gc
import sys

import numpy as np
import torch
from torch import nn


def network(arrays: dict[str, np.ndarray]) -> nn.Module:
    """Linear, BatchNorm, ReLU, Linear, with kernels in Flax's layout."""
    net = nn.Sequential(nn.Linear(16, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 8)).double()
    with torch.no_grad():
        for place, name in ((0, "first"), (3, "last")):
            net[place].weight.copy_(torch.tensor(arrays[f"{name}/kernel"].T))
        net[3].bias.copy_(torch.tensor(arrays["last/bias"]))
    return net


def train(rank: int, ranks: int, arrays: dict[str, np.ndarray], micro_batches: int) -> dict[str, np.ndarray]:
    model = nn.parallel.DistributedDataParallel(network(arrays))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    losses = []
    for x, y in zip(arrays["x"], arrays["y"], strict=True):
        rows = len(x) // ranks
        x, y = (torch.tensor(a[rank * rows : (rank + 1) * rows]) for a in (x, y))  # noqa: PLW2901
        optimizer.zero_grad()
        sums = 0.0
        for i in range(micro_batches):
            is_last = i == micro_batches - 1
            with contextlib.nullcontext() if is_last else model.no_sync():
                loss = (model(x[i::micro_batches]) - y[i::micro_batches]).square().mean() / micro_batches
                loss.backward()
                sums += loss.detach()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.2)
        optimizer.step()
        torch.distributed.all_reduce(sums)
        losses.append(float(sums) / ranks)
    net = model.module
    return {
        "first/kernel": net[0].weight.detach().numpy().T,
        "norm/scale": net[1].weight.detach().numpy(),
        "norm/mean": net[1].running_mean.numpy(),
        "norm/var": net[1].running_var.numpy(),
        "last/kernel": net[3].weight.detach().numpy().T,
        "last/bias": net[3].bias.detach().numpy(),
        "losses": np.asarray(losses),
    }


def main() -> None:
    rank, ranks, rendezvous, source, target = sys.argv[1:]
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{rendezvous}", rank=int(rank), world_size=int(ranks)
    )
    arrays = dict(np.load(source))
    results = {}
    for kind, micro_batches in (("plain", 1), ("no_sync", 2)):
        for name, value in train(int(rank), int(ranks), arrays, micro_batches).items():
            results[f"{kind}/{name}"] = value
    if rank == "0":
        np.savez(target, **results)
    # DDP's reference cycles keep Gloo's threads, and an interpreter that ends before they do aborts: one
    # process in twenty did, on a busy machine.
    gc.collect()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
