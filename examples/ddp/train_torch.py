"""A training with DistributedDataParallel, ZeroRedundancyOptimizer and checkpoints; train_jax.py is its port.

torchrun --nproc-per-node 2 examples/ddp/train_torch.py --out runs/torch
"""

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset


def main() -> None:
    """Trains."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=4)
    options = parser.parse_args()

    # 1. Join the other processes.
    dist.init_process_group("gloo")
    rank, count = dist.get_rank(), dist.get_world_size()

    # 2. Every process reads its share.
    rng = np.random.default_rng(0)
    x = rng.normal(size=(96, 16)).astype(np.float32)
    y = np.sin(x.sum(1, keepdims=True)).astype(np.float32)
    dataset = TensorDataset(torch.from_numpy(x), torch.from_numpy(y))
    sampler = DistributedSampler(dataset, shuffle=False)
    loader = DataLoader(dataset, batch_size=24 // count, sampler=sampler)

    # 3. The model, wrapped; rank 0's parameters are broadcast.
    model = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1))
    with torch.no_grad():
        for parameter in model.parameters():
            size = tuple(parameter.shape[::-1])  # JAX keeps (in, out)
            parameter.copy_(torch.from_numpy(0.2 * rng.normal(size=size).astype(np.float32).T))
    model = DistributedDataParallel(model)

    # 4. The optimizer, its state divided over the processes.
    optimizer = ZeroRedundancyOptimizer(model.parameters(), torch.optim.AdamW, lr=1e-2)

    # 5. Go on from the last checkpoint.
    options.out.mkdir(parents=True, exist_ok=True)
    path, first = options.out / "checkpoint.pt", 0
    if path.exists():
        held = torch.load(path)
        first = held["epoch"]
        model.load_state_dict(held["model"])
        optimizer.load_state_dict(held["optimizer"])

    # 6. Train.
    for epoch in range(first, options.epochs):
        sampler.set_epoch(epoch)
        for xb, yb in loader:
            optimizer.zero_grad()
            loss = ((model(xb) - yb) ** 2).mean()
            loss.backward()
            optimizer.step()
            dist.all_reduce(loss.detach())  # every rank has a loss of its own
        optimizer.consolidate_state_dict()
        if rank == 0:
            held = {"epoch": epoch + 1, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save(held, path.with_suffix(".tmp"))
            path.with_suffix(".tmp").replace(path)
        dist.barrier()

    # 7. Rank 0 reports.
    with torch.no_grad():
        loss = ((model(torch.from_numpy(x)) - torch.from_numpy(y)) ** 2).mean()
    if rank == 0:
        print(f"loss {loss:.6f}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
