"""How long 64 trials of the digits MLP take, compile time included: ours, PyTorch, and a jit a trial.

A trial is 10 epochs of AdamW in batches of 64 on 1149 of scikit-learn's digits, a new order every epoch,
and the loss and accuracy on 288 more; learning rate and weight decay are those of the trial. Every contender
runs in a process of its own; the clock starts when libraries and data are loaded, and nothing is compiled.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks import machine, tables
from benchmarks.optimizer_step import RESULTS
from benchmarks.workers import available_cores, limit_threads, require_torch

__all__ = ["CONTENDERS", "main"]

HIDDEN, EPOCHS, BATCH = 128, 10, 64
REJITTED = 4  # trials that are run with a jit of their own; the time of the others is theirs


def configurations(trials: int) -> list[dict[str, float]]:
    """Learning rates and weight decays, both spread evenly over their exponents."""
    rng = np.random.default_rng(0)
    draws = 10 ** rng.uniform([-4, -4], [-1, 0], (trials, 2))
    return [{"lr": float(lr), "weight_decay": float(decay)} for lr, decay in draws]


def data() -> tuple[dict[str, Any], dict[str, Any]]:
    """Training and validation part of the training digits; the test digits are not used."""
    from jaxopt_core.data import load_digits

    split = load_digits().train
    held_out = np.arange(len(split.labels)) % 5 == 0
    return tuple(  # type: ignore[return-value]
        {"x": split.images[rows], "y": split.labels[rows]} for rows in (~held_out, held_out)
    )


def _trainable(train: Any, valid: Any) -> Any:
    import jax
    import jax.numpy as jnp

    import jaxopt_core as jo
    from jaxopt_core.training import init_state, make_step
    from jaxopt_core.tuning import Setup, minibatch_trainable

    rng = np.random.default_rng(0)
    # As torch.nn.Linear starts: uniform within 1 / sqrt(inputs).
    params = [
        rng.uniform(-(rows**-0.5), rows**-0.5, shape).astype(np.float32)
        for rows, cols in ((64, HIDDEN), (HIDDEN, 10))
        for shape in ((rows, cols), (cols,))
    ]

    def apply(params: Any, x: jax.Array) -> jax.Array:
        w1, b1, w2, b2 = params
        return jax.nn.relu(x @ w1 + b1) @ w2 + b2

    def loss_fn(params: Any, rest: Any, batch: Any, rng: jax.Array) -> Any:
        del rng
        return jo.losses.cross_entropy(apply(params, batch["x"]), batch["y"]), (rest, {})

    def score_fn(state: Any, valid: Any) -> dict[str, jax.Array]:
        logits = apply(state.params, valid["x"])
        right = logits.argmax(-1).astype(jnp.int32) == valid["y"]
        return {
            "loss": jo.losses.cross_entropy(logits, valid["y"]),
            "accuracy": right.mean(dtype=jnp.float32),
        }

    def setup(config: Any, updates: int) -> Setup:
        del updates
        tx = jo.adamw(lr=config["lr"], weight_decay=config["weight_decay"])
        return Setup(init_state(params, {}, tx), make_step(loss_fn, tx), score_fn)

    return minibatch_trainable(setup, train, valid, epochs=EPOCHS, batch_size=BATCH)


def _sweep(how: Any) -> Callable[..., list[float]]:
    def run(configs: Any, train: Any, valid: Any) -> list[float]:
        from jaxopt_core.tuning import sweep

        found = sweep(_trainable(train, valid), configs, how=how)
        return [trial.metrics["accuracy"] for trial in found.trials]

    return run


def _study(configs: Any, train: Any, valid: Any) -> list[float]:
    from jaxopt_core.tuning import Float, Space, study

    space = Space({"lr": Float(1e-4, 1e-1, log=True), "weight_decay": Float(1e-4, 1.0, log=True)})
    found = study(_trainable(train, valid), space, trials=len(configs), metric="loss")
    return [trial.metrics["accuracy"] for trial in found.trials]


def _rejit(configs: Any, train: Any, valid: Any) -> list[float]:
    """What happens when learning rates are numbers of the program: a program for each."""
    import jax

    trainable, found = _trainable(train, valid), []
    args = jax.tree.map(jax.numpy.asarray, trainable.args)
    for config in configs[:REJITTED]:
        fixed = {name: jax.numpy.float32(value) for name, value in config.items()}

        def whole(args: Any, fixed: Any = fixed) -> Any:
            return trainable.advance(fixed, trainable.init(fixed, *args), *args)[1]

        found.append(float(jax.jit(whole)(args)["accuracy"]))
    return found


def _torch_trial(config: dict[str, float], train: Any, valid: Any) -> tuple[float, float]:
    import torch

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, HIDDEN), torch.nn.ReLU(), torch.nn.Linear(HIDDEN, 10))
    optimizer = torch.optim.AdamW(model.parameters(), **config, fused=True)
    loss_fn = torch.nn.CrossEntropyLoss()
    x, y, vx, vy = (
        torch.from_numpy(a) for a in (train["x"], train["y"].astype("int64"), valid["x"], valid["y"])
    )
    for _ in range(EPOCHS):
        order = torch.randperm(len(x))
        for i in range(len(x) // BATCH):
            rows = order[i * BATCH : (i + 1) * BATCH]
            optimizer.zero_grad()
            loss_fn(model(x[rows]), y[rows]).backward()
            optimizer.step()
    with torch.no_grad():
        logits = model(vx)
        return float(loss_fn(logits, vy.long())), float((logits.argmax(-1) == vy).float().mean())


def _torch(threads: int) -> Callable[..., list[float]]:
    def run(configs: Any, train: Any, valid: Any) -> list[float]:
        import torch

        torch.set_num_threads(threads)
        return [_torch_trial(config, train, valid)[1] for config in configs]

    return run


def _torch_optuna(configs: Any, train: Any, valid: Any) -> list[float]:
    import optuna
    import torch

    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    found = []

    def objective(trial: Any) -> float:
        lr = trial.suggest_float("lr", 1e-4, 1e-1, log=True)
        decay = trial.suggest_float("weight_decay", 1e-4, 1.0, log=True)
        loss, accuracy = _torch_trial({"lr": lr, "weight_decay": decay}, train, valid)
        found.append(accuracy)
        return loss

    optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0)).optimize(objective, n_trials=len(configs))
    return found


CONTENDERS: dict[str, Callable[..., list[float]]] = {
    "torch, 1 thread": _torch(1),
    "torch, 2 threads": _torch(2),
    "torch under Optuna": _torch_optuna,
    "a jit for each trial": _rejit,
    "ours, map": _sweep("map"),
    "ours, map, 2 devices": _sweep("map"),
    "ours, vmap": _sweep("vmap"),
    "ours, study": _study,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the comparison; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5, help="processes for each contender, in turns")
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("--quick", action="store_true", help="2 trials, 1 round, nothing recorded")
    parser.add_argument("--one", choices=CONTENDERS, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    require_torch(parser)
    if args.quick:
        args.trials, args.rounds = 2, 1
    if args.one:
        limit_threads(args.threads)
        if "2 devices" in args.one:
            os.environ["JAX_NUM_CPU_DEVICES"] = "2"
        print(json.dumps(_one(args.one, args.trials)))
        return 0
    results: dict[str, list[dict[str, float]]] = {name: [] for name in args.contenders}
    for turn in range(args.rounds):
        first = turn % len(args.contenders)
        for name in args.contenders[first:] + args.contenders[:first]:
            command = [sys.executable, "-m", "benchmarks.tuning", "--one", name, "--trials", str(args.trials)]
            done = subprocess.run(
                [*command, "--threads", str(args.threads)], capture_output=True, text=True, check=False
            )
            if done.returncode:
                print(f"{name}: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
                return 1
            results[name].append(json.loads(done.stdout.splitlines()[-1]))
    _print(results, args.trials)
    if not args.quick:
        described = machine.describe(quick=True)
        now = datetime.datetime.now().astimezone()
        record = {
            "benchmark": "tuning",
            "date": now.isoformat(timespec="seconds"),
            "machine": described,
            "settings": {"trials": args.trials, "rounds": args.rounds, "threads": args.threads},
            "results": results,
        }
        path = RESULTS / f"{now.date()}-{machine.slug(described)}-tuning.json"
        path.write_text(json.dumps(record, indent=1) + "\n")
        print(f"\nwritten: {path.name}")
    return 0


def _one(name: str, trials: int) -> dict[str, float]:
    train, valid = data()
    configs = configurations(trials)
    # Imports are not what is compared; nor is what another contender imports, which Python's collector goes
    # through while a program is traced.
    for library in ("torch", "optuna") if name.startswith("torch") else ("jaxopt_core.tuning", "optuna"):
        importlib.import_module(library)
    if not name.startswith("torch"):
        import jax

        jax.block_until_ready(jax.numpy.zeros(1))  # the backend is there, as torch's is after its import
    start, used = time.perf_counter(), time.process_time()
    accuracies = CONTENDERS[name](configs, train, valid)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - used
    if name == "a jit for each trial":
        seconds, cpu_seconds = (each * len(configs) / len(accuracies) for each in (seconds, cpu_seconds))
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "best": max(accuracies),
        "median": statistics.median(accuracies),
    }


def _print(results: dict[str, list[dict[str, float]]], trials: int) -> None:
    seconds = {name: statistics.median(run["seconds"] for run in runs) for name, runs in results.items()}
    peers = {name: value for name, value in seconds.items() if name.startswith("torch")}
    best = min(peers.values(), default=float("nan"))
    rows = [
        [
            name + (f" (from {min(REJITTED, trials)})" if "jit" in name else ""),
            f"{seconds[name]:.2f}",
            f"{statistics.median(run['cpu_seconds'] for run in runs):.2f}",
            f"{runs[0]['best']:.3f}",
            f"{runs[0]['median']:.3f}",
            f"{best / seconds[name]:.2f}",
        ]
        for name, runs in results.items()
    ]
    print(
        tables.markdown(
            [f"{trials} trials", "s", "CPU s", "best accuracy", "median", "times as fast as PyTorch"], rows
        )
    )


if __name__ == "__main__":
    sys.exit(main())
