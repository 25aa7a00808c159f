"""PyTorch's side of every comparison: the one place in the tests that runs ``torch.optim``.

Parameters, gradients and slots go in and come out as numpy arrays keyed by the parameter's path, in
PyTorch's layout, and gradients are PyTorch's (the conjugate of JAX's for complex parameters).

The same run can be repeated in PyTorch's other arithmetics (``VARIANTS``). How far they lie apart is
PyTorch's own noise, which is what "the same numbers" can mean in float32, bfloat16 and float16.
"""

from __future__ import annotations

import inspect
import unittest.mock
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import torch

__all__ = [
    "VARIANTS",
    "LBFGSStep",
    "Rows",
    "Step",
    "constructor_error",
    "lbfgs_trajectory",
    "run",
    "run_recipe",
    "run_scheduler",
    "run_scheduler_beside_optimizer",
    "scheduler_error",
    "scheduler_signature",
    "signature",
]

torch.set_num_threads(1)  # the tensors are tiny, and pytest-xdist has the cores

VARIANTS = {
    "loop": "one tensor at a time, the implementation that defines the numbers",
    "foreach": "PyTorch's multi-tensor implementation",
    "fused": "PyTorch's fused kernels",
    "wide": "the loop, computed one precision wider and rounded to the parameter's dtype after each step: "
    "what a fused kernel does, for the optimizers that have none",
}
_WIDER = {"float32": "float64", "complex64": "complex128", "bfloat16": "float32", "float16": "float32"}
_SCALARS = (
    "step",
    "mu_product",
    "eta",
    "mu",
)  # kept by PyTorch in float32 (or as int), whatever the parameter


class Rows(NamedTuple):
    """A sparse gradient: ``indices`` (n,) of rows, possibly repeated, and ``values`` (n, ...)."""

    indices: np.ndarray
    values: np.ndarray


class Step(NamedTuple):
    """What PyTorch holds after one step.

    Attributes:
      params: path -> array.
      slots: slot name, as in ``state_dict``, -> path -> array. What PyTorch has not made is not there.
    """

    params: dict[str, np.ndarray]
    slots: dict[str, dict[str, np.ndarray]]


Gradients = Sequence[Mapping[str, Any]] | Callable[[int, Mapping[str, np.ndarray]], Mapping[str, Any]]


def run(
    optimizer: str,
    params: Mapping[str, np.ndarray],
    grads: Gradients,
    arguments: Mapping[str, Any] | None = None,
    *,
    groups: Mapping[str, Mapping[str, Any]] | None = None,
    changes: Sequence[Mapping[str, Any]] | None = None,
    variant: str = "loop",
    steps: int | None = None,
) -> list[Step]:
    """Runs a PyTorch optimizer.

    Args:
      optimizer: class name in ``torch.optim``.
      params: path -> initial value, in any float or complex dtype.
      grads: per step, path -> gradient; ``None`` or a missing path leaves ``p.grad`` at ``None``, and
        :class:`Rows` is a sparse gradient. Or a function of step number and parameters, for ``steps`` steps.
      arguments: constructor arguments.
      groups: path -> arguments of that parameter's own ``param_group``; without it all share one.
      changes: per step, hyperparameters to write into every ``param_group`` before the step; a value
        that is a dict is path -> value (needs ``groups``).
      variant: one of ``VARIANTS``.
      steps: number of steps where ``grads`` is a function.

    Returns:
      One :class:`Step` for each step.
    """
    arguments = dict(arguments or {})
    tensors = {path: _tensor(value, wide=variant == "wide") for path, value in params.items()}
    dtypes = {path: _tensor(value).dtype for path, value in params.items()}
    if variant in ("foreach", "fused") or "foreach" in signature(optimizer):
        arguments |= {"foreach": variant == "foreach"}
    if variant == "fused":
        arguments |= {"fused": True, "foreach": None}
    if variant == "wide" and optimizer == "Adafactor":
        first, second = arguments.get("eps", (None, 1e-3))
        arguments["eps"] = (torch.finfo(next(iter(dtypes.values()))).eps if first is None else first, second)
    members: Any = list(tensors.values())
    if groups is not None:
        members = [{"params": [tensor], **groups.get(path, {})} for path, tensor in tensors.items()]
    opt = getattr(torch.optim, optimizer)(members, **arguments)
    paths = list(tensors)

    history = []
    for t in range(len(grads) if steps is None else steps):
        current = grads(t, history[-1].params if t else params) if callable(grads) else grads[t]
        for path, tensor in tensors.items():
            grad = current.get(path)
            tensor.grad = None if grad is None else _gradient(grad, tensor)
        for name, value in (changes[t] if changes else {}).items():
            for path, group in zip(paths, opt.param_groups, strict=False):
                group[name] = value[path] if isinstance(value, Mapping) else value
        opt.step()
        if variant == "wide":
            _round(opt, dtypes.values(), tensors.values())
        history.append(_snapshot(opt, tensors, dtypes))
    return history


def signature(optimizer: str) -> dict[str, Any]:
    """Argument name -> default, in order, of a PyTorch optimizer, without ``params``."""
    parameters = inspect.signature(getattr(torch.optim, optimizer)).parameters.values()
    return {p.name: p.default for p in parameters if p.name != "params"}


def constructor_error(
    optimizer: str, arguments: Mapping[str, Any], shape: Sequence[int] = (2, 2), dtype: str = "float32"
) -> tuple[type[Exception], str] | None:
    """What PyTorch raises for these arguments, at construction or in the first step.

    Returns:
      Exception type and message, or ``None`` where PyTorch accepts them.
    """
    param = torch.ones(tuple(shape), dtype=getattr(torch, dtype))
    sparse = optimizer == "SparseAdam"
    try:
        opt = getattr(torch.optim, optimizer)([param], **arguments)
        param.grad = torch.ones_like(param).to_sparse(1) if sparse else torch.ones_like(param)
        opt.step(lambda: torch.ones(()) if optimizer == "LBFGS" else None)
    except Exception as error:  # noqa: BLE001, whatever PyTorch raises is the answer
        return type(error), str(error)
    return None


def _tensor(value: Any, wide: bool = False) -> torch.Tensor:
    array = np.asarray(value)
    name = array.dtype.name
    dtype = getattr(torch, _WIDER.get(name, name) if wide else name)
    if name == "bfloat16":  # numpy's extension type, which torch does not read
        array = array.astype(np.float32)
    return torch.from_numpy(np.array(array, order="C")).to(dtype)


def _gradient(grad: Any, tensor: torch.Tensor) -> torch.Tensor:
    if not isinstance(grad, Rows):
        return _tensor(grad).to(tensor.dtype)
    indices = torch.from_numpy(np.asarray(grad.indices, np.int64))[None]
    values = _tensor(grad.values).to(tensor.dtype)
    return torch.sparse_coo_tensor(indices, values, tensor.shape, check_invariants=True)


def _round(opt: torch.optim.Optimizer, dtypes: Any, tensors: Any) -> None:
    for tensor, dtype in zip(tensors, dtypes, strict=True):
        tensor.copy_(tensor.to(dtype))
        for name, value in opt.state.get(tensor, {}).items():
            if name not in _SCALARS and value is not None:
                value.copy_(value.to(dtype))


def _snapshot(
    opt: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor], dtypes: Mapping[str, torch.dtype]
) -> Step:
    slots: dict[str, dict[str, np.ndarray]] = {}
    for path, tensor in tensors.items():
        for name, value in opt.state.get(tensor, {}).items():
            if value is not None:
                kept = torch.as_tensor(value) if name in _SCALARS else value.to(dtypes[path])
                slots.setdefault(name, {})[path] = _numpy(kept)
    return Step({path: _numpy(tensor.to(dtypes[path])) for path, tensor in tensors.items()}, slots)


def _numpy(tensor: torch.Tensor) -> np.ndarray:
    if tensor.dtype == torch.bfloat16:
        return tensor.float().numpy().astype(ml_dtypes.bfloat16)
    return tensor.resolve_conj().numpy().copy()


def run_recipe(
    source: str, weight: np.ndarray, bias: np.ndarray, batches: Sequence[tuple[np.ndarray, np.ndarray]]
) -> dict[str, np.ndarray]:
    """Runs a script that trains ``model = torch.nn.Linear(...)`` on ``batches``; returns its parameters.

    The first call of ``torch.nn.Linear`` in it makes a layer with the given weight and bias.
    """
    layer = torch.nn.Linear(weight.shape[1], weight.shape[0])
    layer.load_state_dict({"weight": _tensor(weight), "bias": _tensor(bias)})
    scope: dict[str, Any] = {"batches": [(_tensor(x), _tensor(y)) for x, y in batches]}
    with unittest.mock.patch("torch.nn.Linear", return_value=layer):
        exec(source, scope)
    return {name: _numpy(value.detach()) for name, value in layer.state_dict().items()}


class LBFGSStep(NamedTuple):
    """What PyTorch's LBFGS holds after one step.

    Attributes:
      params: path -> array.
      loss: what ``step`` returned, the loss before it.
      state: name -> number or array, as in ``state_dict``; lists are stacked along a new first axis,
        ``al`` without the entries that are still ``None``. What PyTorch has not made is not there.
    """

    params: dict[str, np.ndarray]
    loss: float
    state: dict[str, Any]


def lbfgs_trajectory(
    loss_fn: Callable[[Any, Mapping[str, torch.Tensor]], torch.Tensor],
    params: Mapping[str, np.ndarray],
    steps: int,
    arguments: Mapping[str, Any] | None = None,
    *,
    lrs: Mapping[int, float] | None = None,
    nudge: int = 0,
) -> list[LBFGSStep]:
    """Runs ``torch.optim.LBFGS``, whose gradients depend on where it goes.

    Args:
      loss_fn: ``(module, path -> tensor) -> loss``, in operations that ``module``, here ``torch``, has.
      params: path -> initial value.
      steps: number of calls of ``step``.
      arguments: constructor arguments.
      lrs: step -> learning rate to write into the ``param_group`` before that step.
      nudge: if not 0, a seed: every initial value is moved at random by at most the machine epsilon,
        times its size if that is more than 1. How far such runs lie apart is what rounding does to
        this trajectory in PyTorch itself.
    """
    rng = np.random.default_rng(nudge)
    tensors = {}
    for path, value in params.items():
        by = np.finfo(value.dtype).eps * np.maximum(np.abs(value), 1) * rng.uniform(-1, 1, value.shape)
        tensors[path] = _tensor(value + by.astype(value.dtype) * bool(nudge)).requires_grad_()
    opt = torch.optim.LBFGS(list(tensors.values()), **(arguments or {}))

    def closure() -> torch.Tensor:
        opt.zero_grad()
        loss = loss_fn(torch, tensors)
        loss.backward()
        return loss.detach()

    history = []
    for t in range(steps):
        if lrs and t in lrs:
            opt.param_groups[0]["lr"] = lrs[t]
        loss = float(opt.step(closure))
        now = {path: _numpy(tensor.detach()) for path, tensor in tensors.items()}
        history.append(LBFGSStep(now, loss, _lbfgs_state(opt)))
    return history


def _lbfgs_state(opt: torch.optim.Optimizer) -> dict[str, Any]:
    state: dict[str, Any] = {}
    for name, value in next(iter(opt.state.values())).items():
        if isinstance(value, list):
            made = [_numpy(each) for each in value if each is not None]
            state[name] = np.stack(made) if made else np.zeros(0)
        elif value is not None:
            state[name] = _numpy(value) if isinstance(value, torch.Tensor) else value
    return state


def run_scheduler(
    spec: tuple[str, Mapping[str, Any]],
    steps: int,
    lr: float,
    *,
    optimizer: str = "SGD",
    metrics: Sequence[float] | None = None,
    epochs: Sequence[float] | None = None,
) -> dict[str, np.ndarray]:
    """Runs a PyTorch scheduler by its ordinary steps.

    Args:
      spec: class name in ``torch.optim.lr_scheduler`` (or ``SWALR``), and its arguments without the
        optimizer; ``schedulers`` among them is a list of such pairs.
      steps: number of values wanted; ``scheduler.step()`` is called once fewer.
      lr: the optimizer's rate.
      optimizer: class name in ``torch.optim``.
      metrics: what ``step`` is called with, for ``ReduceLROnPlateau``.
      epochs: what ``step`` is called with instead, from the second value on.

    Returns:
      ``"lr"`` and, where the optimizer has one, ``"momentum"``, each an array of ``steps``.
    """
    param = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    extra = {"momentum": 0.5} if optimizer == "SGD" else {}
    opt = getattr(torch.optim, optimizer)([param], lr=lr, **extra)
    with warnings.catch_warnings():
        # Some compositions step their schedulers before the optimizer, and are warned of it.
        warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step", category=UserWarning)
        scheduler = _scheduler(spec, opt)
    opt.step()
    history = [_rate_and_momentum(opt)]
    for t in range(steps - 1):
        handed = metrics if metrics is not None else epochs
        scheduler.step(*([] if handed is None else [handed[t]]))
        history.append(_rate_and_momentum(opt))
    return {name: np.array([each[name] for each in history]) for name in history[0]}


def run_scheduler_beside_optimizer(
    spec: tuple[str, Mapping[str, Any]],
    optimizer: str,
    arguments: Mapping[str, Any],
    param: np.ndarray,
    grads: Sequence[np.ndarray],
    metrics: Sequence[float] | None = None,
) -> np.ndarray:
    """Parameters after each step of an optimizer that a scheduler is stepped after, ``(steps, ...)``."""
    tensor = _tensor(param).requires_grad_()
    opt = getattr(torch.optim, optimizer)([tensor], **arguments)
    scheduler = _scheduler(spec, opt)
    history = []
    for t, grad in enumerate(grads):
        tensor.grad = _tensor(grad)
        opt.step()
        scheduler.step(*([] if metrics is None else [metrics[t]]))
        history.append(_numpy(tensor.detach()))
    return np.stack(history)


def scheduler_signature(name: str) -> dict[str, Any]:
    """Argument name -> default, in order, of a PyTorch scheduler."""
    return {p.name: p.default for p in inspect.signature(_scheduler_class(name)).parameters.values()}


def scheduler_error(
    spec: tuple[str, Mapping[str, Any]], lr: float = 0.5, steps: int = 1
) -> tuple[type[Exception], str] | None:
    """What PyTorch raises for these arguments, at construction or in the first steps; or ``None``."""
    try:
        run_scheduler(spec, steps, lr)
    except Exception as error:  # noqa: BLE001, whatever PyTorch raises is the answer
        return type(error), str(error)
    return None


def _scheduler(spec: Any, opt: torch.optim.Optimizer) -> Any:
    name, arguments = spec
    if "schedulers" not in arguments:
        return _scheduler_class(name)(opt, **arguments)
    children = [_scheduler(child, opt) for child in arguments["schedulers"]]
    if name == "ChainedScheduler":
        return torch.optim.lr_scheduler.ChainedScheduler(children, opt)
    return torch.optim.lr_scheduler.SequentialLR(opt, children, arguments["milestones"])


def _scheduler_class(name: str) -> Any:
    return getattr(torch.optim.swa_utils if name == "SWALR" else torch.optim.lr_scheduler, name)


def _rate_and_momentum(opt: torch.optim.Optimizer) -> dict[str, float]:
    group = opt.param_groups[0]
    momentum = group["betas"][0] if "betas" in group else group.get("momentum")
    return {"lr": float(group["lr"])} | ({} if momentum is None else {"momentum": float(momentum)})
