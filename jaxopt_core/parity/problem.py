"""The random problem and the two recipes that ``jaxopt-core parity`` compares."""

from __future__ import annotations

import ast
import difflib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.experimental import sparse

from jaxopt_core import optimizers, schedulers
from jaxopt_core.extras import needs_extra
from jaxopt_core.interop.kinds import KINDS

__all__ = ["Recipe", "Settings", "make_recipe", "settings"]

_NAMES = sorted(name for name in optimizers.__all__ if name not in ("lbfgs", "sparse_rows"))
_KIND_OF = {function.__name__: kind for kind, function in KINDS.items()}
_SCHEDULES = {
    "constant_lr": "ConstantLR",
    "cosine_annealing_lr": "CosineAnnealingLR",
    "cosine_annealing_warm_restarts": "CosineAnnealingWarmRestarts",
    "cyclic_lr": "CyclicLR",
    "exponential_lr": "ExponentialLR",
    "linear_lr": "LinearLR",
    "multi_step_lr": "MultiStepLR",
    "one_cycle_lr": "OneCycleLR",
    "polynomial_lr": "PolynomialLR",
    "reduce_lr_on_plateau": "ReduceLROnPlateau",
    "step_lr": "StepLR",
    "swa_lr": "SWALR",
}
Settings = dict[str, Any]


class Recipe(NamedTuple):
    """The same training recipe on both sides.

    Attributes:
      torch_optimizer: over tensors of the initial values.
      torch_scheduler: of it, or ``None``.
      tx: ours.
      params: the initial values.
      grads_fn: ``(step, params) -> grads``.
      metrics: per step, for a plateau; else ``None``.
    """

    torch_optimizer: Any
    torch_scheduler: Any
    tx: Any
    params: Any
    grads_fn: Any
    metrics: Sequence[float] | None


def settings(texts: Sequence[str]) -> Settings:
    """Arguments out of texts such as ``"amsgrad=true"``.

    Raises:
      ValueError: a text is no ``name=value`` with a Python literal as its value.

    Example:
      >>> settings(["amsgrad=true", "betas=(0.9, 0.95)", "mode=max"])
      {'amsgrad': True, 'betas': (0.9, 0.95), 'mode': 'max'}
    """
    found: Settings = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise ValueError(f"expected name=value, found {text!r}")
        literal = {"true": "True", "false": "False", "none": "None"}.get(value.lower(), value)
        try:
            found[name] = ast.literal_eval(literal)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            if not value.replace("_", "").replace("-", "").isalnum():
                raise ValueError(
                    f"expected a number, a word or a tuple after {name}=, found {value!r}"
                ) from None
            found[name] = value
    return found


def make_recipe(
    optimizer: str,
    arguments: Settings,
    schedule: str | None,
    schedule_arguments: Settings,
    steps: int,
    dtype: str,
    seed: int,
) -> Recipe:
    """Builds both sides.

    Raises:
      ValueError: an unknown name; arguments that PyTorch or this package refuses.
      MissingExtraError: torch is not installed.
    """
    with needs_extra("parity"):
        import torch
    _known("optimizer", optimizer, _NAMES)
    constructor = getattr(optimizers, optimizer)
    _known_arguments(
        optimizer, arguments, [n for n in inspect.signature(constructor).parameters if n != "axes"]
    )
    values = _values(optimizer, seed)
    tensors = [torch.from_numpy(v).to(getattr(torch, dtype)).requires_grad_() for v in values.values()]
    params = {name: jnp.asarray(v).astype(dtype) for name, v in values.items()}
    metrics = None
    try:
        torch_optimizer = getattr(torch.optim, _KIND_OF[optimizer])(tensors, **arguments)
        torch_scheduler = None
        if schedule is not None:
            _known("schedule", schedule, sorted(_SCHEDULES))
            torch_scheduler, arguments = _scheduled(
                torch_optimizer, schedule, schedule_arguments, steps, arguments, optimizer
            )
            if schedule == "reduce_lr_on_plateau":
                metrics = [1 / (1 + min(step, 20)) for step in range(steps)]  # improves, and then no more
        tx = constructor(**arguments)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{optimizer}: {error}") from error
    return Recipe(torch_optimizer, torch_scheduler, tx, params, _gradients(optimizer, dtype, seed), metrics)


def _known(what: str, name: str, names: Sequence[str]) -> None:
    if name not in names:
        near = difflib.get_close_matches(name, names, 1)
        hint = f", did you mean {near[0]}?" if near else "."
        raise ValueError(f"unknown {what} {name!r}{hint} Known are: {', '.join(names)}")


def _known_arguments(owner: str, arguments: Mapping[str, Any], names: Sequence[str]) -> None:
    for name in arguments:
        _known(f"argument of {owner}", name, names)


def _values(optimizer: str, seed: int) -> dict[str, np.ndarray[Any, Any]]:
    shapes: dict[str, tuple[int, ...]] = {"kernel": (16, 24), "matrix": (24, 8)}
    if optimizer != "muon":
        shapes |= {"bias": (24,), "convolution": (8, 4, 3, 3)}
    if optimizer == "sparse_adam":
        shapes = {"table": (64, 8)}
    rng = np.random.default_rng(seed)
    return {name: 0.3 * rng.standard_normal(shape) for name, shape in sorted(shapes.items())}


def _gradients(optimizer: str, dtype: str, seed: int) -> Any:
    """Noise, and a pull towards zero through which a difference comes back in the next gradient."""

    def dense(step: int, params: Mapping[str, Any]) -> dict[str, Any]:
        rng = np.random.default_rng([seed, step])
        noise = {name: rng.standard_normal(p.shape) for name, p in params.items()}
        return {
            name: (0.5 * p + jnp.asarray(noise[name], p.dtype)).astype(dtype) for name, p in params.items()
        }

    def rows(step: int, params: Mapping[str, Any]) -> dict[str, Any]:
        rng = np.random.default_rng([seed, step])
        table = params["table"]
        ids = jnp.asarray(rng.integers(0, table.shape[0], 16))
        data = (
            0.5 * table[ids] + jnp.asarray(rng.standard_normal((16, table.shape[1])), table.dtype)
        ).astype(dtype)
        return {"table": sparse.BCOO((data, ids[:, None]), shape=table.shape)}

    return rows if optimizer == "sparse_adam" else dense


def _scheduled(
    torch_optimizer: Any, schedule: str, given: Settings, steps: int, arguments: Settings, optimizer: str
) -> tuple[Any, Settings]:
    with needs_extra("parity"):
        from torch.optim import lr_scheduler, swa_utils
    lr = torch_optimizer.param_groups[0]["lr"]
    theirs_of = getattr(swa_utils if schedule == "swa_lr" else lr_scheduler, _SCHEDULES[schedule])
    ours_of = getattr(schedulers, schedule)
    rate = next(iter(inspect.signature(ours_of).parameters))  # lr, max_lr or base_lr
    needed = _needed(schedule, lr, steps, torch_optimizer)
    _known_arguments(schedule, given, list(inspect.signature(ours_of).parameters))
    chosen = needed | given
    base = {rate: chosen.pop(rate, lr)}
    theirs = theirs_of(torch_optimizer, **({} if rate == "lr" else base), **chosen)
    ours = ours_of(**base, **chosen)
    if not isinstance(ours, schedulers.Cycle):
        return theirs, arguments | {"lr": ours}
    changed: Settings = {"lr": ours.lr}
    if chosen.get("cycle_momentum", True):
        if "betas" in torch_optimizer.defaults:
            changed["betas"] = (ours.momentum, torch_optimizer.defaults["betas"][1])
        else:
            changed["momentum"] = ours.momentum
    del optimizer
    return theirs, arguments | changed


def _needed(schedule: str, lr: float, steps: int, torch_optimizer: Any) -> Settings:
    """What a scheduler cannot do without, and a cycle that fits the run."""
    if schedule == "one_cycle_lr":
        return {"max_lr": 10 * lr, "total_steps": steps + 1} | _momentum(torch_optimizer)
    if schedule == "cyclic_lr":
        return {"base_lr": lr, "max_lr": 10 * lr, "step_size_up": max(steps // 6, 1)} | _momentum(
            torch_optimizer
        )
    others: dict[str, Settings] = {
        "cosine_annealing_lr": {"T_max": max(steps // 2, 1)},
        "cosine_annealing_warm_restarts": {"T_0": max(steps // 5, 1)},
        "exponential_lr": {"gamma": 0.99},
        "multi_step_lr": {"milestones": [steps // 3, 2 * steps // 3]},
        "polynomial_lr": {"total_iters": steps},
        "step_lr": {"step_size": max(steps // 4, 1)},
        "swa_lr": {"swa_lr": lr / 2},
    }
    return others.get(schedule, {})


def _momentum(torch_optimizer: Any) -> Settings:
    has = {"betas", "momentum"} & set(torch_optimizer.defaults)
    return {} if has and torch_optimizer.defaults.get("momentum", 1) else {"cycle_momentum": False}
