"""Every optimizer, every numeric argument of it, and short runs that the engine's tests compare.

Hyperparameters are sums of few powers of two: as Python numbers and as float32 arrays they are the
same, so that two ways of giving one may differ in the order of rounding only.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxopt_core as jo
from jaxopt_core import optimizers
from tests.thinning import slow_unless

__all__ = [
    "NAMES",
    "NUMERIC",
    "REPRESENTATIVE",
    "STRUCTURAL",
    "Argument",
    "Run",
    "assert_close",
    "assert_equal",
    "differ",
    "gradients",
    "kernel",
    "make",
    "parameters",
    "run",
    "steps_of",
    "usual_arguments",
]

NAMES = sorted(set(optimizers.__all__) - {"sparse_rows", "lbfgs", "LBFGSState"})

# One of each kind of rule; what is about the engine runs with these by default, and with all where slow
# tests run: moments, factors, scalar slots, matrices, nothing but momentum, rows.
KINDS = ("adamw", "adafactor", "asgd", "muon", "sgd", "sparse_adam")
REPRESENTATIVE = slow_unless(KINDS.__contains__, NAMES)

# Integers that say how often something is unrolled or how large the state is.
STRUCTURAL = {"ns_steps"}

# (usual value, another one); under which the trajectories of these runs differ visibly.
_VALUES: dict[str, Any] = {
    "lr": (0.125, 0.0625),
    "betas": ((0.75, 0.5), (0.9375, 0.75)),
    "eps": (2.0**-7, 2.0**-3),
    "weight_decay": (0.25, 0.5),
    "momentum": (0.5, 0.75),
    "dampening": (0.25, 0.5),
    "momentum_decay": (0.25, 4.0),
    "rho": (0.75, 0.5),
    "alpha": (0.75, 0.5),
    "lr_decay": (0.25, 1.0),
    "initial_accumulator_value": (0.5, 4.0),
    "etas": ((0.5, 0.25), (1.25, 1.5)),
    "step_sizes": ((0.046875, 0.09375), (0.25, 0.140625)),
    "lambd": (0.125, 0.5),
    "t0": (1.0, 0.0),
    "beta2_decay": (-0.75, -0.25),
    "d": (1.0, 2.0),
    "ns_coefficients": ((3.5, 3.25), (-4.75, -4.5), (2.0, 1.75)),
}
_VALUES_OF = {
    ("adafactor", "eps"): ((0.25, 1.0), (0.5, 2.0)),
    ("muon", "eps"): (64.0, 128.0),
    ("radam", "eps"): (1.0, 8.0),
}
# RAdam is plain momentum for its first five steps.
_STEPS = {"radam": 7}


class Argument(NamedTuple):
    """One number among an optimizer's arguments; ``index`` is its place in a tuple (``betas``)."""

    optimizer: str
    name: str
    index: int | None
    usual: float
    other: float

    def __str__(self) -> str:
        return f"{self.optimizer}-{self.name}{'' if self.index is None else [self.index]}"

    def given(self, value: Any) -> dict[str, Any]:
        """The constructor arguments with ``value`` in this place."""
        arguments = usual_arguments(self.optimizer)
        if self.index is None:
            return arguments | {self.name: value}
        values = list(arguments[self.name])
        values[self.index] = value
        return arguments | {self.name: tuple(values)}

    def setting(self, value: Any) -> dict[str, Any]:
        """What ``set_hyperparams`` takes to change this number and no other."""
        if self.index is None:
            return {self.name: value}
        length = len(_values(self.optimizer, self.name))
        return {self.name: tuple(value if i == self.index else None for i in range(length))}

    def of(self, hyperparams: Mapping[str, Any]) -> Any:
        """This one out of what ``read_hyperparams`` returned."""
        value = hyperparams[self.name]
        return value if self.index is None else value[self.index]


def _values(optimizer: str, name: str) -> Any:
    return _VALUES_OF.get((optimizer, name)) or _VALUES[name]


def _is_number(default: Any) -> bool:
    return isinstance(default, int | float) and not isinstance(default, bool)


def _arguments(optimizer: str) -> Iterable[Argument]:
    for name, parameter in inspect.signature(getattr(jo, optimizer)).parameters.items():
        if name in STRUCTURAL:
            continue
        if _is_number(parameter.default):
            yield Argument(optimizer, name, None, *_values(optimizer, name))
        elif isinstance(parameter.default, tuple):
            for i, pair in enumerate(_values(optimizer, name)):
                yield Argument(optimizer, name, i, *pair)


NUMERIC = [argument for name in NAMES for argument in _arguments(name)]


def usual_arguments(optimizer: str) -> dict[str, Any]:
    """Constructor arguments in which every number is the usual one."""
    out: dict[str, Any] = {}
    for argument in NUMERIC:
        if argument.optimizer == optimizer:
            if argument.index is None:
                out[argument.name] = argument.usual
            else:
                out[argument.name] = (*out.get(argument.name, ()), argument.usual)
    return out


def make(optimizer: str, **arguments: Any) -> Any:
    """The optimizer with the usual numbers, but for those given."""
    return getattr(jo, optimizer)(**(usual_arguments(optimizer) | arguments))


def _shapes(optimizer: str) -> dict[str, Any]:
    # One shape wherever it does: each operation is compiled once for all optimizers.
    bias = (3,) if optimizer == "adafactor" else (4, 3)
    return {"layer": {"bias": bias, "kernel": (4, 3)}}


@functools.cache
def _normal(optimizer: str, seed: int, factor: float, dtype: Any) -> Any:
    # Cached as numpy: what jnp.asarray returns under a transformation belongs to it.
    rng = np.random.default_rng(seed)

    def draw(shape: tuple[int, ...]) -> np.ndarray:
        return (factor * rng.normal(size=shape)).astype(dtype)

    return jax.tree.map(draw, _shapes(optimizer), is_leaf=lambda x: isinstance(x, tuple))


def parameters(optimizer: str, dtype: Any = "float32") -> Any:
    """A small tree of parameters that the optimizer accepts."""
    return jax.tree.map(jnp.asarray, _normal(optimizer, 0, 1.0, jnp.dtype(dtype)))


def gradients(optimizer: str, step: int, dtype: Any = "float32") -> Any:
    """Its gradients, growing with ``step``; sparse ones, with a repeated row, for ``sparse_adam``."""
    grads = _normal(optimizer, step + 1, 1.0 + step, jnp.dtype(dtype))
    return jax.tree.map(_some_rows if optimizer == "sparse_adam" else jnp.asarray, grads)


def _some_rows(grad: np.ndarray) -> Any:
    return jo.sparse_rows(jnp.asarray([2, 0, 2]), jnp.asarray(grad[:3]), num_rows=len(grad))


def kernel(tree: Any) -> Any:
    """The smallest tree: one matrix, where more leaves would only compile longer."""
    return {"kernel": tree["layer"]["kernel"]}


def steps_of(optimizer: str) -> int:
    """As many steps as every argument needs to show; the last but one still must, for schedules."""
    return _STEPS.get(optimizer, 3)


class Run(NamedTuple):
    """``params`` and ``slots`` after each step, and the state at the end."""

    params: list[Any]
    slots: list[Any]
    state: Any


def run(
    tx: Any,
    optimizer: str,
    *,
    before: Mapping[int, Callable[[Any], Any]] | None = None,
    extra: Sequence[Mapping[str, Any]] | None = None,
) -> Run:
    """Runs ``tx`` on the parameters and gradients of ``optimizer``, eagerly.

    Args:
      tx: the transformation.
      optimizer: whose parameters and gradients.
      before: step -> what is done to the state before it.
      extra: per step, the extra arguments of ``tx.update``.
    """
    params = parameters(optimizer)
    state = tx.init(params)
    history: list[tuple[Any, Any]] = []
    for t in range(steps_of(optimizer)):
        if before and t in before:
            state = before[t](state)
        arguments = extra[t] if extra else {}
        updates, state = tx.update(gradients(optimizer, t), state, params, **arguments)
        params = jo.apply_updates(params, updates)
        history.append((params, getattr(state, "slots", None)))
    return Run([p for p, _ in history], [s for _, s in history], state)


def assert_close(actual: Any, expected: Any, rtol: float = 1e-5, atol: float = 1e-6) -> None:
    """Two trees of one structure are equal but for rounding; names the leaf that is not."""

    def check(path: Any, a: Any, b: Any) -> None:
        a, b = np.asarray(a), np.asarray(b)
        where = jax.tree_util.keystr(path)
        assert a.shape == b.shape, f"{where}: shapes {a.shape} and {b.shape}"
        assert a.dtype == b.dtype, f"{where}: dtypes {a.dtype} and {b.dtype}"
        wide = np.complex128 if np.iscomplexobj(a) else np.float64
        np.testing.assert_allclose(a.astype(wide), b.astype(wide), rtol=rtol, atol=atol, err_msg=where)

    jax.tree_util.tree_map_with_path(check, actual, expected)


def assert_equal(actual: Any, expected: Any) -> None:
    """Two trees are equal to the bit, dtypes and structure included."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    assert_close(actual, expected, rtol=0, atol=0)


def differ(one: Any, other: Any) -> bool:
    """Whether two trees of one structure differ by more than rounding anywhere."""
    try:
        assert_close(one, other, rtol=1e-4, atol=1e-5)
    except AssertionError:
        return True
    return False
