"""A training checkpoint of a network with BatchNorm, through files: 20 steps there, 20 here, 20 there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

import jaxopt_core as jo
from jaxopt_core import interop, models

STEPS = 20


class Theirs(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = torch.nn.Conv2d(2, 4, 3, padding=1, bias=False)
        self.bn = torch.nn.BatchNorm2d(4)
        self.head = torch.nn.Linear(4 * 4 * 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.bn(self.stem(x))).flatten(1))


class Ours(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        wide: Any = {"param_dtype": jnp.float64, "rngs": rngs}
        self.stem = models.layers.Conv2d(2, 4, 3, padding=1, bias=False, **wide)
        self.bn = models.layers.BatchNorm2d(4, **wide)
        self.head = models.layers.Linear(4 * 4 * 4, 3, **wide)

    def __call__(self, x: jax.Array) -> jax.Array:
        y = jax.nn.relu(self.bn(self.stem(x)))
        return self.head(y.reshape(len(y), -1))


def batch(time: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(time)
    return rng.normal(size=(6, 2, 4, 4)), rng.normal(size=(6, 3))


class Training:
    """PyTorch's script, checkpoint and all."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = Theirs().double()
        decayed = [p for p in self.model.parameters() if p.ndim > 1]
        others = [p for p in self.model.parameters() if p.ndim == 1]
        groups = [{"params": decayed}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=0.01, weight_decay=0.1)
        self.scheduler = torch.optim.lr_scheduler.OneCycleLR(self.optimizer, 0.02, 100)

    def steps(self, times: range) -> Training:
        for time in times:
            x, y = map(torch.from_numpy, batch(time))
            self.optimizer.zero_grad()
            torch.nn.functional.mse_loss(self.model(x), y).backward()
            self.optimizer.step()
            self.scheduler.step()
        return self

    def save(self, path: Path) -> None:
        parts = {"model": self.model, "optimizer": self.optimizer, "scheduler": self.scheduler}
        torch.save({name: part.state_dict() for name, part in parts.items()}, path)

    def load(self, path: Path) -> Training:
        checkpoint = torch.load(path, weights_only=True)
        self.model.load_state_dict(checkpoint["model"])
        self.optimizer.load_state_dict(checkpoint["optimizer"])
        self.scheduler.load_state_dict(checkpoint["scheduler"])
        return self


@pytest.mark.usefixtures("x64")
def test_a_checkpoint_goes_through_files_both_ways(tmp_path: Path) -> None:
    alone = Training().steps(range(STEPS))
    alone.save(tmp_path / "there.pt")

    checkpoint = interop.load(tmp_path / "there.pt")
    apply, params, rest = models.pure(Ours(nnx.Rngs(0)))
    rules = [interop.after_flatten(r"head\.weight", "head/kernel", channels=4, height=4, width=4)]
    layout = interop.make_layout(params, checkpoint["model"], rest=rest, rules=rules)
    params = interop.params_from_torch(checkpoint["model"], layout, like=params)
    rest = interop.params_from_torch(checkpoint["model"], layout, like=rest)
    cycle = jo.schedulers.one_cycle_lr(0.02, 100)
    tx, opt_state = interop.from_torch_optimizer(
        checkpoint["optimizer"], layout, params, "AdamW", lr=cycle.lr, betas=(cycle.momentum, 0.999)
    )

    @jax.jit
    def step(params: Any, rest: Any, opt_state: Any, x: Any, y: Any) -> Any:
        def loss(params: Any) -> Any:
            output, new_rest = apply(params, rest, x, train=True)
            return jnp.mean((output - y) ** 2), new_rest

        grads, new_rest = jax.grad(loss, has_aux=True)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return jo.apply_updates(params, updates), new_rest, opt_state

    for time in range(STEPS, 2 * STEPS):
        x, y = batch(time)
        params, rest, opt_state = step(params, rest, opt_state, x.transpose(0, 2, 3, 1), y)
    optimizer = interop.optimizer_to_torch(tx, opt_state, layout, params, like=checkpoint["optimizer"])
    after = {
        "model": interop.params_to_torch(params, layout, rest=rest),
        "optimizer": optimizer,
        "scheduler": interop.scheduler_to_torch(
            tx, opt_state, params, optimizer, like=checkpoint["scheduler"]
        ),
    }
    interop.save(after, tmp_path / "here.pt")

    resumed = Training().load(tmp_path / "here.pt").steps(range(2 * STEPS, 3 * STEPS))
    alone.steps(range(STEPS, 3 * STEPS))
    for name, value in alone.model.state_dict().items():
        np.testing.assert_allclose(
            resumed.model.state_dict()[name].numpy(), value.numpy(), rtol=1e-10, atol=1e-12, err_msg=name
        )
