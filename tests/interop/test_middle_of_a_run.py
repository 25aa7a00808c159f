"""50 steps in PyTorch, 50 here, 50 in PyTorch, through files, are 150 steps in PyTorch."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxopt_core as jo
from jaxopt_core import interop, losses, models
from jaxopt_core.models.resnet import BasicBlock
from tests import oracle_models, oracle_sequences
from tests.interop.torch_training import Training

STEPS = 50


class Case(NamedTuple):
    """Ours, PyTorch's, its weights, the loss, and the shapes of inputs and targets."""

    ours: Any
    theirs: Any
    weights: Any
    loss: str
    inputs: tuple[int, ...]
    targets: tuple[int, ...]


make = functools.partial
CASES = {
    "mlp": Case(
        make(models.MLP, (6, 8, 8, 3)),
        make(oracle_models.mlp, (6, 8, 8, 3)),
        oracle_models.weights,
        "classes",
        (8, 6),
        (8,),
    ),
    "resnet": Case(
        make(models.ResNet, BasicBlock, (1, 1, 1, 1), 3, width=2, cifar_stem=True),
        make(oracle_models.resnet, "BasicBlock", (1, 1, 1, 1), 3, 2, cifar_stem=True),
        oracle_models.weights,
        "classes",
        (8, 8, 8, 3),
        (8,),
    ),
    "transformer": Case(
        make(models.TransformerEncoder, 1, 8, 2, dim_feedforward=6, dropout=0.0, batch_first=True),
        make(oracle_sequences.encoder, 1, 8, 2, dim_feedforward=6, batch_first=True),
        oracle_sequences.random_weights,
        "squares",
        (4, 5, 8),
        (4, 5, 8),
    ),
}
LOSSES = {"classes": losses.cross_entropy, "squares": losses.mse_loss}


def batch(case: Case, time: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(time)
    x = rng.normal(size=case.inputs)
    return x, rng.integers(0, 3, case.targets) if case.loss == "classes" else rng.normal(size=case.targets)


def training(case: Case, optimizer: str, dtype: str) -> Training:
    module = case.theirs()
    return Training(
        module, case.weights(module), optimizer=optimizer, loss=case.loss, dtype=dtype, steps=3 * STEPS
    )


def go_on(case: Case, optimizer: str, dtype: str, there: Path, back: Path) -> None:
    """Our part of the run: all that is known is the file, and which class of optimizer it is of."""
    checkpoint = interop.load(there)
    apply, params, rest = models.pure(
        nnx.eval_shape(lambda: case.ours(param_dtype=jnp.dtype(dtype), rngs=nnx.Rngs(0)))
    )
    layout = interop.make_layout(params, checkpoint["model"], rest=rest)
    key = jax.random.key(0)
    params, rest = (
        interop.params_from_torch(checkpoint["model"], layout, like=tree, rngs=key) for tree in (params, rest)
    )
    scheduler = checkpoint.get("scheduler")
    lr = {"lr": jo.schedulers.cosine_annealing_lr(0.02, 3 * STEPS)} if scheduler is not None else {}
    tx, opt_state = interop.from_torch_optimizer(
        checkpoint["optimizer"], layout, params, optimizer, scheduler=scheduler, **lr
    )

    @jax.jit
    def step(params: Any, rest: Any, opt_state: Any, x: Any, y: Any) -> Any:
        def loss(params: Any) -> Any:
            output, new = apply(params, rest, x, train=True)
            return LOSSES[case.loss](output, y), new

        grads, rest = jax.grad(loss, has_aux=True)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return jo.apply_updates(params, updates), rest, opt_state

    for time in range(STEPS, 2 * STEPS):
        x, y = (each.astype(dtype if each.dtype.kind == "f" else "int32") for each in batch(case, time))
        params, rest, opt_state = step(params, rest, opt_state, x, y)

    state_dict = interop.optimizer_to_torch(tx, opt_state, layout, params, like=checkpoint["optimizer"])
    after = {
        "model": interop.params_to_torch(params, layout, rest=rest, like=checkpoint["model"]),
        "optimizer": state_dict,
    }
    if scheduler is not None:
        after["scheduler"] = interop.scheduler_to_torch(tx, opt_state, params, state_dict, like=scheduler)
    interop.save(after, back)


def interrupted(case: Case, optimizer: str, dtype: str, folder: Path) -> dict[str, np.ndarray]:
    times = functools.partial(batch, case)
    training(case, optimizer, dtype).steps(times, range(STEPS)).save(folder / "there.pt")
    with jax.enable_x64(dtype == "float64"):
        go_on(case, optimizer, dtype, folder / "there.pt", folder / "back.pt")
    resumed = training(case, optimizer, dtype).load(folder / "back.pt")
    return resumed.steps(times, range(2 * STEPS, 3 * STEPS)).arrays()


@functools.cache
def alone(name: str, optimizer: str, dtype: str) -> dict[str, np.ndarray]:
    case = CASES[name]
    run = training(case, optimizer, dtype).steps(functools.partial(batch, case), range(3 * STEPS))
    return {name: array.copy() for name, array in run.arrays().items()}


def distances(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> dict[str, float]:
    """Largest difference of each tensor, in proportion to its largest element."""
    assert found.keys() == expected.keys()
    return {
        name: float(np.abs(found[name] - value).max() / max(np.abs(value).max(), 1e-3))
        for name, value in expected.items()
    }


@pytest.mark.parametrize(
    ("name", "optimizer", "tolerance"),
    [
        ("mlp", "AdamW", 1e-13),
        ("resnet", "SGD", 1e-12),
        # The bias of the keys cancels in the softmax: its gradient is rounding, which Adam divides by its own
        # size. All other tensors are within 1e-13, and SGD, which divides by nothing, keeps all there.
        ("transformer", "AdamW", 1e-10),
        ("transformer", "SGD", 1e-13),
    ],
)
def test_float64(name: str, optimizer: str, tolerance: float, tmp_path: Path) -> None:
    case = CASES[name]
    expected = alone(name, optimizer, "float64")
    found = distances(interrupted(case, optimizer, "float64", tmp_path), expected)
    assert max(found.values()) < tolerance, found
    start = case.weights(case.theirs())
    assert all(np.abs(expected[key] - start[key]).max() > 1e-3 for key in start)  # the run went somewhere


# SGD's larger steps send the ResNet's rounding errors apart, in PyTorch too; then nothing can be compared.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "optimizer"), [("mlp", "AdamW"), ("resnet", "AdamW"), ("transformer", "SGD")]
)
def test_float32(name: str, optimizer: str, tmp_path: Path) -> None:
    """As near to PyTorch in float64 as PyTorch in float32 is, up to a factor for luck.

    The model is compared, not the optimizer's averages of gradients: one unit that crosses ReLU's zero a
    step earlier shows in these a hundred times as much.
    """
    case = CASES[name]
    model = case.weights(case.theirs())
    found, theirs, expected = (
        {key: run[key] for key in model}
        for run in (
            interrupted(case, optimizer, "float32", tmp_path),
            alone(name, optimizer, "float32"),
            alone(name, optimizer, "float64"),
        )
    )
    noise = max(distances(theirs, expected).values())
    assert max(distances(found, expected).values()) < 5 * noise < 1e-3
