"""What the tests launch: a small training with ZeRO-1 that can be told to fail."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import jaxopt_core as jo
from jaxopt_core import parallel
from jaxopt_core.data import Arrays
from jaxopt_core.training import init_state, make_step


def deliberate_mistake() -> None:
    raise ArithmeticError("a deliberate mistake")


def torchrun() -> tuple[str, int, int]:
    port = int(os.environ["MASTER_PORT"]) + 1 + int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    return f"127.0.0.1:{port}", int(os.environ["WORLD_SIZE"]), int(os.environ["RANK"])


FAULTS = {
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "term": lambda: os.kill(os.getpid(), signal.SIGTERM),
    "sleep": lambda: time.sleep(600),
    "exit": lambda: sys.exit(3),
    "raise": deliberate_mistake,
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--every", type=int, default=5)
    parser.add_argument("--pause", type=float, default=0.0)
    parser.add_argument("--faults", nargs="*", default=[], help="attempt:rank:step:kind")
    parser.add_argument("--width", type=int, default=8)
    options = parser.parse_args()

    if "TORCHELASTIC_RESTART_COUNT" in os.environ:  # benchmarks.recovery
        count = parallel.initialize(*torchrun())
    else:
        count = parallel.initialize()
    # Raised between two steps: from a handler it may come inside of Python's collector, which swallows it.
    mistakes: list[int] = []
    signal.signal(signal.SIGUSR2, lambda number, _: mistakes.append(number))
    rank = jax.process_index()
    faults = dict(each.rsplit(":", 1) for each in options.faults)
    here = f"{os.environ.get('JAXOPT_ATTEMPT', '0')}:{rank}"
    log = (options.out / f"order-{rank}.jsonl").open("a")

    rng = np.random.default_rng(0)
    x = rng.normal(size=(104, options.width)).astype(np.float32)
    arrays = {"id": np.arange(104), "x": x, "y": x @ np.ones((options.width, 1), np.float32)}
    data = Arrays(arrays, 24, drop_last=True, process_index=rank, process_count=count)

    def loss_fn(params, rest, batch, rng):
        del rng
        return jnp.mean((jnp.tanh(batch["x"] @ params["w"]) @ params["v"] - batch["y"]) ** 2), (rest, {})

    tx = parallel.synchronized(jo.adamw(lr=1e-2))
    step_fn = parallel.data_parallel(make_step(loss_fn, tx), parallel.mesh(), parallel.zero1())
    w = rng.normal(size=(options.width, 8)).astype(np.float32)
    state = step_fn.place(init_state({"w": w, "v": np.ones((8, 1), np.float32)}, {}, tx))
    checkpoints = parallel.ShardedCheckpoints(options.out / "checkpoints")
    step, begun = 0, False
    if (resumed := checkpoints.restore(state)) is not None:
        step, state, meta = resumed
        data.restore(meta["data"])
    (options.out / f"{rank}.pid.part").write_text(str(os.getpid()))
    print(f"{time.time():.2f} begins at {step}", flush=True)

    while step < options.steps:
        for batch in data:
            ids = batch.pop("id")
            state, metrics = step_fn(state, batch)
            step += 1
            loss = float(metrics["loss"])
            if not begun:  # by a step: what torchrun and we are compared by
                begun = True
                (options.out / f"{rank}.pid.part").rename(options.out / f"{rank}.pid")
            log.write(json.dumps([step, ids.tolist(), loss]) + "\n")
            log.flush()
            if mistakes:
                deliberate_mistake()
            if fault := faults.get(f"{here}:{step}"):
                FAULTS[fault]()
            asked = parallel.reached(step)
            if asked or step % options.every == 0:
                checkpoints.save(step, state, {"data": data.state()})
            if asked:
                checkpoints.close()
                print(f"saved {step}", flush=True)
                parallel.leave()
            time.sleep(options.pause)
            if step == options.steps:
                break
    checkpoints.close()
    if rank == 0:
        np.savez(options.out / "end.npz", **{name: np.asarray(p) for name, p in state.params.items()})
    print(f"{time.time():.2f} done", flush=True)


if __name__ == "__main__":
    main()
