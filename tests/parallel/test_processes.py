"""Several processes: they end where one device ends, and where PyTorch's DistributedDataParallel does."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import jaxopt_core as jo
from jaxopt_core.models import pure
from jaxopt_core.models.layers import BatchNorm1d, Linear
from jaxopt_core.parallel import data_parallel_shard_map, synchronized
from tests.parallel.problems import batches, devices, make_step, run, start
from tests.parallel.worker import CASES, names, train

ROOT = Path(__file__).parents[2]


def together(commands, **environment):
    """Runs processes side by side; if one fails or two minutes pass, all are ended."""
    settings = os.environ | {"OMP_NUM_THREADS": "1"} | environment
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", *map(str, command)],
            cwd=ROOT, env=settings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for command in commands
    ]  # fmt: skip
    with contextlib.ExitStack() as stack:
        for process in processes:
            stack.callback(process.kill)
        for process in processes:
            output, _ = process.communicate(timeout=120)
            assert process.returncode == 0, output[-3000:]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.mark.parametrize(
    ("processes", "each"),
    [pytest.param(2, 2, id="2x2"), pytest.param(4, 1, id="4x1", marks=pytest.mark.slow)],
)
@pytest.mark.usefixtures("x64")
def test_processes_match_one_device(processes, each, tmp_path):
    port, out = free_port(), tmp_path / "out.npz"
    together(
        [("tests.parallel.worker", rank, processes, port, out) for rank in range(processes)],
        JAX_PLATFORMS="cpu",
        JAX_NUM_CPU_DEVICES=str(each),
        NPROC="8",
    )
    state, losses = train(jax.jit, batches(dtype=np.float64))
    with np.load(out) as got:
        for case in CASES:
            np.testing.assert_allclose(got[f"{case}/losses"], losses, rtol=1e-12)
            for name, want in names(state).items():
                np.testing.assert_allclose(got[f"{case}/{name}"], want, rtol=1e-12, atol=1e-12, err_msg=name)


class Net(nnx.Module):
    def __init__(self):
        rngs = nnx.Rngs(0)
        kind = {"param_dtype": jnp.float64}
        # A bias in front of BatchNorm has gradient 0, and what Adam makes of its rounding is noise.
        self.first = Linear(16, 8, bias=False, rngs=rngs, **kind)
        self.norm = BatchNorm1d(8, **kind)
        self.last = Linear(8, 8, rngs=rngs, **kind)

    def __call__(self, x):
        return self.last(nnx.relu(self.norm(self.first(x))))


@pytest.mark.usefixtures("x64")
def test_two_devices_match_distributed_data_parallel(tmp_path):
    apply, params, rest = pure(Net())
    data = batches(10, dtype=np.float64)
    paths = ("first/kernel", "last/kernel", "last/bias")
    arrays = {path: params[path.split("/")[0]][path.split("/")[1]] for path in paths}
    arrays |= {name: np.stack([batch[name] for batch in data]) for name in ("x", "y")}
    source, target = tmp_path / "in.npz", tmp_path / "out.npz"
    np.savez(source, **arrays)
    together([("tests.parallel.ddp", rank, 2, tmp_path / "meeting", source, target) for rank in range(2)])

    def loss_fn(params, rest, batch, rng):
        del rng
        y, rest = apply(params, rest, batch["x"], train=True)
        return jnp.mean(jnp.square(y - batch["y"])), (rest, {})

    tx = synchronized(optax.chain(jo.gradients.clip_grad_norm(0.2), jo.adamw(0.01)))
    with np.load(target) as theirs:
        for kind, micro_batches in (("plain", 1), ("no_sync", 2)):
            step = data_parallel_shard_map(make_step(loss_fn, tx, micro_batches), devices(2))
            state, losses = run(step, start(params, tx, rest), data)
            np.testing.assert_allclose(losses, theirs[f"{kind}/losses"], rtol=1e-12)
            for name in ("first/kernel", "last/kernel", "last/bias", "norm/scale", "norm/mean", "norm/var"):
                layer, leaf = name.split("/")
                tree = state["rest"] if leaf in ("mean", "var") else state["params"]
                np.testing.assert_allclose(
                    tree[layer][leaf],
                    theirs[f"{kind}/{name}"],
                    rtol=1e-12,
                    atol=1e-12,
                    err_msg=f"{kind}/{name}",
                )
