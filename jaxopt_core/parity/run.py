"""Both sides on the same problem, step by step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from jaxopt_core.interop import Layout
from jaxopt_core.interop.nested import find, state_in
from jaxopt_core.leaf import compute_dtype
from jaxopt_core.leafwise import apply_updates
from jaxopt_core.parity.differences import Comparison, Difference, Divergence
from jaxopt_core.parity.report import Parity
from jaxopt_core.parity.torch_side import TorchSide, as_values, layout_of, tensor_names
from jaxopt_core.tree import flatten

__all__ = ["parity"]

_FACTOR = 4  # times PyTorch's own noise: two runs of three may part further than the other two
_LEAST_OF_RATES = 1e-6  # what the schedules here promise in float32
_SETTLED = 20  # steps; the noise of fewer is a matter of luck
_LEAST = {8: 1e-12, 4: 2.5e-7, 2: 2e-2}  # of the norm, by bytes of a number


def parity(
    torch_optimizer: Any,
    tx: optax.GradientTransformation,
    params: Any,
    grads_fn: Callable[[int, Any], Any],
    steps: int,
    *,
    layout: Layout | None = None,
    torch_scheduler: Any = None,
    metrics: Sequence[float] | None = None,
    on_step: Callable[[int], object] | None = None,
) -> Parity:
    """Runs a PyTorch optimizer and its counterpart side by side and measures how far they are apart.

    PyTorch runs several times, each time on a copy: as a loop over tensors (the reference); with ``foreach``
    and ``fused``, where it has them; and, in less than float64, as a loop that computes in float64 and rounds
    what it stores, and as one whose scheduled hyperparameters are rounded to float32, which PyTorch keeps in
    float64 and a JAX program cannot. How far the loop is from the others is PyTorch's own noise. Ours may be
    four times as far from it, or a few last places where there is no noise.
    Each run computes its gradients at its own parameters, so that errors feed back as in training.

    Args:
      torch_optimizer: any optimizer of ``torch.optim`` but LBFGS, whose tensors hold the initial values. It
        is not touched.
      tx: one optimizer of this package, alone or inside ``optax.chain`` and the like.
      params: the same parameters here.
      grads_fn: ``(step, params) -> grads``, the gradients of your loss in JAX, with ``None`` for a parameter
        that has none; step counts from 0. It is jitted by nobody but you.
      steps: how many updates.
      layout: which tensor is which leaf, from ``interop.make_layout``. Default: the tensors are the
        leaves, in the order of both.
      torch_scheduler: a scheduler of ``torch_optimizer``, stepped after every update.
      metrics: per step, what ``ReduceLROnPlateau.step`` and ``tx.update(..., value=)`` are given.
      on_step: called after every update with the number of those made.

    Returns:
      A :class:`Parity`: print it, look at ``ok``, ``plot`` it.

    Raises:
      ValueError: the initial values differ, or it is not known which tensor is which parameter.

    Example:
      >>> import jax.numpy as jnp, jaxopt_core as jo, torch
      >>> from jaxopt_core.parity import parity
      >>> weight = torch.ones(3, requires_grad=True)
      >>> recipe = torch.optim.RMSprop([weight], lr=0.1, momentum=0.9)
      >>> tx = jo.rmsprop(lr=0.1, momentum=0.9)
      >>> parity(recipe, tx, {"w": jnp.ones(3)}, lambda step, p: {"w": p["w"] - 2}, steps=20).ok
      True
    """
    found = find(tx, params)
    if found.kind == "LBFGS":
        raise ValueError(
            "parity compares optimizers that take gradients; LBFGS takes a closure. Run both and compare."
        )
    if type(torch_optimizer).__name__ != found.kind:
        raise ValueError(f"torch_optimizer is {type(torch_optimizer).__name__}, tx {found.kind}.")
    layout = layout_of(params, torch_optimizer) if layout is None else layout
    names = tensor_names(torch_optimizer, layout)
    sides = _torch_sides(torch_optimizer, torch_scheduler, layout, names, params)
    reference = sides["loop"]
    start = as_values(params, {})["params"]
    for path, value in as_values(reference.params(), {})["params"].items():
        if not np.array_equal(value, start[path], equal_nan=True):
            raise ValueError(
                f"The tensors of torch_optimizer do not hold the values of params: {path!r} differs."
            )

    @jax.jit
    def update(params: Any, state: Any, grads: Any, extra: Any) -> tuple[Any, Any]:
        updates, state = tx.update(grads, state, params, **extra)
        return apply_updates(params, updates), state

    initial, state = params, tx.init(params)
    slots_like = state_in(state).slots
    comparison = Comparison()
    comparison.start(start)
    dtype = max(
        (compute_dtype(leaf.dtype) for _, leaf in flatten(params).present()), key=lambda d: d.itemsize
    )
    least = _LEAST[min(leaf.dtype.itemsize for _, leaf in flatten(_reals(params)).present())]
    measured: dict[str, list[_Measured]] = {}
    for step in range(steps):
        metric = None if metrics is None else float(metrics[step])
        rates = reference.rates()
        for side in sides.values():
            side.step(grads_fn(step, side.params()), metric)
        extra = {} if metric is None else {"value": np.float32(metric)}
        params, state = update(params, state, grads_fn(step, params), extra)
        ours = as_values(params, {n: t for n, t in state_in(state).slots.items() if n != "step"})
        resolved = state_in(state).hyperparams
        ours["lr"] = {
            path: np.asarray(found.hyperparams.resolve(resolved, path, dtype, dtype).lr, dtype)
            for path in rates
        }
        expected = reference.values(found, slots_like)
        expected["lr"] = {path: np.asarray(rate, dtype) for path, rate in rates.items()}
        comparison.grow(expected)
        others = [side.values(found, slots_like) for name, side in sides.items() if name != "loop"]
        for quantity, by_path in expected.items():
            noise = _worst(
                comparison.measure(quantity, path, value, other[quantity][path])[0]
                for other in others
                for path, value in by_path.items()
                if quantity in other
            )
            found_here = {
                p: comparison.measure(quantity, p, v, ours[quantity][p]) for p, v in by_path.items()
            }
            measured.setdefault(quantity, []).append(_measured(found_here, noise, by_path, ours[quantity]))
        if on_step is not None:
            on_step(step + 1)
    allowed = {
        quantity: np.maximum(
            _FACTOR * _so_far([m.noise.norm for m in by_step]),
            max(least, _LEAST_OF_RATES) if quantity == "lr" and dtype != np.float64 else least,
        )
        for quantity, by_step in measured.items()
    }
    beyond = [
        Divergence(step + 1, quantity, *m.worst, float(allowed[quantity][step]))
        for quantity, by_step in measured.items()
        for step, m in enumerate(by_step)
        if m.ours.norm > allowed[quantity][step]
    ]
    series = {
        quantity: [(m.ours, m.noise, float(a)) for m, a in zip(by_step, allowed[quantity], strict=True)]
        for quantity, by_step in measured.items()
    }
    size = sum(leaf.size for _, leaf in flatten(initial).present())
    first = min(beyond, key=lambda divergence: divergence.step, default=None)
    return Parity(found.kind, str(dtype), size, series, tuple(n for n in sides if n != "loop"), first)


class _Measured(NamedTuple):
    """One quantity after one step: the differences, and the worst value: path, index, PyTorch's and ours."""

    ours: Difference
    noise: Difference
    worst: tuple[str, tuple[int, ...], Any, Any]


def _so_far(noise: Sequence[float]) -> Any:
    largest = np.maximum.accumulate(noise)
    return np.maximum(largest, largest[min(_SETTLED, len(largest)) - 1])


def _torch_sides(
    optimizer: Any, scheduler: Any, layout: Layout, names: list[str], params: Any
) -> dict[str, TorchSide]:
    flags = optimizer.param_groups[0]
    variants: dict[str, dict[str, bool]] = {"loop": {}}
    if "foreach" in flags:
        variants["foreach"] = {"foreach": True}
    is_complex = any(tensor.dtype.is_complex for tensor in flags["params"])
    if "fused" in flags and not is_complex:  # for which PyTorch has none
        variants["fused"] = {"fused": True}
    if any(tensor.dtype.itemsize < 8 for tensor in flags["params"]):
        variants["float32 rates"] = {"rounded": True}
        variants["float64 arithmetic"] = {"wide": True}
    made = {}
    for name, arguments in variants.items():
        made[name] = TorchSide(optimizer, scheduler, layout, names, params, **arguments)
    return made


def _reals(params: Any) -> Any:
    return jax.tree.map(lambda p: p.real, params)


def _worst(differences: Any) -> Difference:
    columns = list(zip(*differences, strict=True))
    return Difference(*map(max, columns)) if columns else Difference()


def _measured(found: Any, noise: Difference, expected: Any, actual: Any) -> _Measured:
    path = max(found, key=lambda p: found[p][0].norm)
    index = found[path][1]
    worst = (path, index, expected[path][index].item(), actual[path][index].item())
    return _Measured(_worst(difference for difference, _ in found.values()), noise, worst)
