"""The port of train_torch.py, step by step; it can besides be killed at any moment, and stopped by SIGTERM.

jaxopt-core launch --nproc 2 examples/ddp/train_jax.py --out runs/jax
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import jaxopt_core as jo
from jaxopt_core import parallel
from jaxopt_core.data import Arrays
from jaxopt_core.training import init_state, make_step


def main() -> None:
    """Trains."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=4)
    options = parser.parse_args()

    # 1. Join the other processes.
    count = parallel.initialize()
    rank = jax.process_index()

    # 2. Every process reads its share.
    rng = np.random.default_rng(0)
    x = rng.normal(size=(96, 16)).astype(np.float32)
    y = np.sin(x.sum(1, keepdims=True)).astype(np.float32)
    data = Arrays(
        {"x": x, "y": y}, 24, shuffle=False, drop_last=True, process_index=rank, process_count=count
    )

    # 3. The model is a function; every process makes the same parameters.
    shapes = {"w1": (16, 32), "b1": (32,), "w2": (32, 1), "b2": (1,)}
    params = {name: 0.2 * rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}

    def loss_fn(params, rest, batch, rng):
        del rng  # no dropout
        hidden = jnp.tanh(batch["x"] @ params["w1"] + params["b1"][None])
        predicted = hidden @ params["w2"] + params["b2"][None]
        return jnp.mean((predicted - batch["y"]) ** 2), (rest, {})

    # 4. The optimizer, its state divided over all devices of all processes.
    tx = parallel.synchronized(jo.adamw(lr=1e-2))
    step_fn = parallel.data_parallel(make_step(loss_fn, tx), parallel.mesh(), parallel.zero1())
    state = step_fn.place(init_state(params, {}, tx))

    # 5. Go on from the last checkpoint, whatever the number of processes that wrote it.
    checkpoints, step = parallel.ShardedCheckpoints(options.out / "checkpoints"), 0
    if (resumed := checkpoints.restore(state)) is not None:
        step, state, meta = resumed
        data.restore(meta["data"])

    # 6. Train. The loss is that of the whole batch, on every rank.
    while data.state()["epoch"] < options.epochs:
        for batch in data:
            state, _ = step_fn(state, batch)
            step += 1
            asked_to_leave = parallel.reached(step)
            if asked_to_leave or data.state()["batch"] == 0:
                checkpoints.save(step, state, {"data": data.state()})
            if asked_to_leave:
                checkpoints.close()
                parallel.leave()

    # 7. Rank 0 reports; all must compute, as the arrays are everybody's.
    loss, _ = jax.jit(loss_fn)(state.params, {}, {"x": x, "y": y}, state.rng)
    if rank == 0:
        print(f"loss {loss:.6f}")
    checkpoints.close()


if __name__ == "__main__":
    main()
