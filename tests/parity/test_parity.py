"""The tool with which users compare their own recipe with PyTorch's."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

import jaxopt_core as jo
from jaxopt_core import interop
from jaxopt_core.cli import main
from jaxopt_core.cli.errors import UsageError
from jaxopt_core.cli.parity import Parity
from jaxopt_core.cli.parity import parity as command
from jaxopt_core.parity import parity
from jaxopt_core.parity.problem import make_recipe, settings
from tests.engine.cases import KINDS
from tests.thinning import slow_unless

torch.set_num_threads(1)  # the tensors are tiny, and pytest-xdist has the cores

OPTIMIZERS = [name for name in jo.optimizers.__all__ if name not in ("lbfgs", "sparse_rows")]


def run(
    optimizer: str, steps: int = 12, dtype: str = "float32", schedule: Any = None, **arguments: Any
) -> Any:
    recipe = make_recipe(optimizer, arguments, schedule, {}, steps, dtype, seed=0)
    return parity(
        recipe.torch_optimizer,
        recipe.tx,
        recipe.params,
        recipe.grads_fn,
        steps,
        torch_scheduler=recipe.torch_scheduler,
        metrics=recipe.metrics,
    )


@pytest.mark.parametrize("optimizer", slow_unless(KINDS.__contains__, OPTIMIZERS))
def test_every_optimizer_is_equal(optimizer):
    result = run(optimizer)
    assert result.ok, str(result)
    assert result.steps == 12
    assert {"params", "lr"} < set(result.series) or optimizer == "sgd"


@pytest.mark.parametrize("schedule", ["one_cycle_lr", "reduce_lr_on_plateau"])
def test_with_a_scheduler_in_float64(schedule, x64):
    del x64
    result = run("adamw", 25, "float64", schedule, amsgrad=True)
    assert result.ok, str(result)
    lr = [ours.absolute for ours, *_ in result.series["lr"]]
    assert max(lr) < 1e-12


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1 = torch.nn.Linear(5, 7)
        self.fc2 = torch.nn.Linear(7, 2)


def problem(weight_decay: float) -> tuple[Any, ...]:
    model = Net()
    optimizer = torch.optim.AdamW(
        [
            {
                "params": [(n, p) for n, p in model.named_parameters() if n.endswith("weight")],
                "weight_decay": 0.1,
            },
            {
                "params": [(n, p) for n, p in model.named_parameters() if n.endswith("bias")],
                "weight_decay": 0.0,
            },
        ],
        lr=1e-2,
    )
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 5)
    state_dict = {name: value.numpy().copy() for name, value in model.state_dict().items()}
    like = {
        f"fc{i}": {"kernel": jnp.zeros(s), "bias": jnp.zeros(s[1])} for i, s in ((1, (5, 7)), (2, (7, 2)))
    }
    layout = interop.make_layout(like, state_dict)
    params = interop.params_from_torch(state_dict, layout, like=like)
    tx = optax.chain(
        jo.adamw(
            lr=jo.schedulers.step_lr(1e-2, 5), weight_decay=jo.by_path({"bias": 0.0}, default=weight_decay)
        )
    )

    @jax.jit
    def loss_gradient(params: Any) -> Any:
        def loss(params: Any) -> Any:
            x = jnp.asarray(np.linspace(-1, 1, 40).reshape(8, 5), jnp.float32)
            hidden = jnp.tanh(x @ params["fc1"]["kernel"] + params["fc1"]["bias"][None])
            return jnp.mean(jnp.square(hidden @ params["fc2"]["kernel"] + params["fc2"]["bias"][None] - 1))

        return jax.grad(loss)(params)

    return optimizer, scheduler, tx, params, lambda step, p: loss_gradient(p), layout, model


def test_a_users_model_with_groups_names_and_a_scheduler():
    optimizer, scheduler, tx, params, grads_fn, layout, model = problem(weight_decay=0.1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    result = parity(optimizer, tx, params, grads_fn, 30, layout=layout, torch_scheduler=scheduler)
    assert result.ok, str(result)
    # The user's own optimizer, scheduler and model are as they were.
    assert not optimizer.state
    assert scheduler.last_epoch == 0
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_wrong_recipe_names_the_first_value_that_differs():
    optimizer, scheduler, tx, params, grads_fn, layout, _ = problem(weight_decay=0.2)
    result = parity(optimizer, tx, params, grads_fn, 8, layout=layout, torch_scheduler=scheduler)
    assert not result.ok
    first = result.first
    assert (first.step, first.quantity) == (1, "params")
    assert first.path.endswith("kernel")
    assert len(first.element) == 2
    assert f"Different, first at step 1, params, {first.path}[" in str(result)


def test_a_wrong_epsilon_is_found_in_float64_at_once(x64):
    del x64
    weight = torch.ones(4, dtype=torch.float64, requires_grad=True)
    result = parity(
        torch.optim.Adam([weight], eps=1e-8),
        jo.adam(eps=1.1e-8),
        {"w": jnp.ones(4)},
        lambda step, p: {"w": 0.1 * p["w"]},
        steps=3,
    )
    assert result.first.step == 1


def test_missing_gradients():
    tensors = [torch.ones(3, requires_grad=True), torch.ones(2, requires_grad=True)]
    params = {"a": jnp.ones(3), "b": jnp.ones(2)}

    def grads(step: int, p: Any) -> Any:
        return {"a": p["a"], "b": None if step in (0, 3) else p["b"]}

    result = parity(torch.optim.Adam(tensors), jo.adam(), params, grads, 10)
    assert result.ok, str(result)


def test_complex_parameters():
    values = np.asarray([1 + 2j, -0.5j], np.complex64)
    tensor = torch.from_numpy(values.copy()).requires_grad_()
    result = parity(
        torch.optim.Adam([tensor], lr=0.1), jo.adam(lr=0.1), {"w": jnp.asarray(values)}, lambda t, p: p, 20
    )
    assert result.ok, str(result)


def test_what_cannot_be_compared():
    weight = torch.ones(3, requires_grad=True)
    params = {"w": jnp.ones(3)}
    with pytest.raises(ValueError, match="torch_optimizer is SGD, tx Adam"):
        parity(torch.optim.SGD([weight]), jo.adam(), params, None, 1)
    with pytest.raises(ValueError, match="do not hold the values of params: 'w' differs"):
        parity(torch.optim.SGD([weight]), jo.sgd(), {"w": jnp.zeros(3)}, None, 1)
    with pytest.raises(ValueError, match="must be the leaves of params"):
        parity(torch.optim.SGD([weight]), jo.sgd(), {"w": jnp.ones(2)}, None, 1)
    with pytest.raises(ValueError, match="LBFGS takes a closure"):
        parity(torch.optim.LBFGS([weight]), jo.lbfgs(), params, None, 1)


def test_command(tmp_path):
    picture = tmp_path / "parity.png"
    arguments = "adamw --set weight_decay=0.1 amsgrad=true --schedule one_cycle_lr --steps 30 --out"
    # A process of its own, which compiles as users do: rounding is what it looks at.
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    out = subprocess.run(
        [sys.executable, "-m", "jaxopt_core.cli", "parity", *arguments.split(), str(picture)],
        env=environment,
        capture_output=True,
        check=True,
        text=True,
        timeout=300,
    ).stdout
    assert "AdamW, 888 parameters, float32, 30 steps" in out
    assert "Equal: within PyTorch's noise at each of 30 steps." in out
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Parity("adamm"), "unknown optimizer 'adamm', did you mean adam"),
        (Parity("adam", ("foo=1",)), "unknown argument of adam 'foo'"),
        (Parity("adam", ("lr=-1",)), "adam: Invalid learning rate: -1"),
        (Parity("adam", ("lr",)), "expected name=value, found 'lr'"),
        (Parity("adam", ("lr=__import__('os')",)), "expected a number, a word or a tuple after lr="),
        (Parity("sgd", schedule="cosine"), "unknown schedule 'cosine'"),
        (Parity("sgd", steps=0), "--steps: expected 1 to 1000000, found 0"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(UsageError, match=message.replace("(", r"\(").replace(")", r"\)")):
        command(options)


def test_settings_are_literals():
    assert settings(["a=1e-3", "b=None", "c=max"]) == {"a": 1e-3, "b": None, "c": "max"}


def test_arguments_may_be_set_one_by_one(capsys):
    line = "parity adam --set eps=1e-6 --steps 3 --set amsgrad=true"
    assert main(line.split()) == 0
    assert "max_exp_avg_sq" in capsys.readouterr().out
