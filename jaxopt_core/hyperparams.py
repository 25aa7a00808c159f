"""What a hyperparameter may be, and how it becomes a value for a parameter.

Every argument of every optimizer is one of

- a number, flag, string or ``None``: fixed, compiled into the program, and free to decide structure
  (``momentum=0`` allocates no buffer). The learning rate is the exception: a number is only where it
  starts, because every training script wants to read it and most want to change it;
- an array or tracer: kept in the optimizer's state, so one compiled program serves every value;
- a schedule, ``count -> value``, or a stateful schedule in Optax's protocol
  (``init()``, ``update(state, **extra)``, ``__call__(state, **extra)``);
- a tuple of these (``betas``), or :func:`by_path` of these: PyTorch's parameter groups.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxopt_core.groups import ByPath

__all__ = [
    "Hyperparams",
    "Scheduled",
    "Values",
    "is_zero",
]


class Scheduled(NamedTuple):
    """The state of a hyperparameter that follows a schedule: the value last used, and memory."""

    value: jax.Array
    state: Any


def _is_stateful(value: Any) -> bool:
    return isinstance(value, optax.schedules.StatefulSchedule)


def _is_array(value: Any) -> bool:
    return isinstance(value, jax.Array | np.ndarray)


def _is_tuple(value: Any) -> bool:
    return type(value) is tuple  # a NamedTuple may be a schedule


def is_zero(value: Any) -> bool:
    """Whether a resolved value is the fixed number 0, so that its term can be left out."""
    return isinstance(value, int | float) and value == 0


@jax.tree_util.register_pytree_node_class
class Values:
    """The hyperparameters of one parameter, as attributes: numbers, or scalars of ``compute_dtype``.

    ``dtype`` is the parameter's own dtype, ``compute_dtype`` the real dtype that the rule computes in.
    A pytree of the scalars; what is fixed belongs to its structure.
    """

    def __init__(self, dtype: np.dtype, compute_dtype: np.dtype, values: dict[str, Any]):
        self.dtype = dtype
        self.compute_dtype = compute_dtype
        self.__dict__.update(values)

    def __getattr__(self, name: str) -> Any:  # for type checkers; only reached for unknown names
        raise AttributeError(f"this optimizer has no hyperparameter {name!r}")

    def tree_flatten(self) -> tuple[list[jax.Array], Any]:
        """What can change, and what is fixed."""
        leaves, structure = jax.tree.flatten(vars(self))
        fixed = tuple(None if _is_array(leaf) else leaf for leaf in leaves)
        return [leaf for leaf in leaves if _is_array(leaf)], (structure, fixed)

    @classmethod
    def tree_unflatten(cls, fixed: Any, scalars: Sequence[Any]) -> Values:
        """Undoes :meth:`tree_flatten`."""
        structure, leaves = fixed
        rest = iter(scalars)
        values = jax.tree.unflatten(structure, [next(rest) if leaf is None else leaf for leaf in leaves])
        return cls(values.pop("dtype"), values.pop("compute_dtype"), values)


class Hyperparams:
    """The arguments of one optimizer, and how they become values.

    Args:
      structure: flags, sizes and names: what decides the program and so must be fixed, or
        :func:`by_path` of what is fixed.
      lengths: name -> length of the arguments that are tuples of numbers.
      optional: tuples that may have ``None`` in the place of a number.
      changeable: names whose numbers are kept in the state, to be read and set during the run.
      **numbers: name -> every other argument, in PyTorch's names.

    Raises:
      TypeError: an argument is none of the things that it may be.
      ValueError: a tuple has another length, an array is not a scalar.
    """

    def __init__(
        self,
        *,
        structure: Mapping[str, Any] | None = None,
        lengths: Mapping[str, int] | None = None,
        optional: Sequence[str] = (),
        changeable: Sequence[str] = ("lr",),
        **numbers: Any,
    ):
        lengths = lengths or {}
        self.arguments = {
            name: _tuple(name, value, lengths[name], name in optional)
            if name in lengths
            else _number(name, value, name in changeable)
            for name, value in numbers.items()
        } | {name: _structural(name, value) for name, value in (structure or {}).items()}

    def init(self, paths: Sequence[str], dtype: Any) -> dict[str, Any]:
        """The state of everything that can change, for parameters at ``paths``."""
        for name, value in self.arguments.items():
            _check_patterns(name, value, paths)
        states = {name: _init(name, value, dtype) for name, value in self.arguments.items()}
        return {name: state for name, state in states.items() if jax.tree.leaves(state)}

    def advance(
        self, states: dict[str, Any], count: jax.Array, extra: dict[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Evaluates the schedules for one update.

        Args:
          states: what :meth:`init` or the previous call returned.
          count: int32 scalar, updates made so far.
          extra: the extra arguments of ``tx.update``, for stateful schedules.

        Returns:
          The states to use in this update, and those to keep for the next one: a stateful schedule
          sees this update's metric only afterwards, as a PyTorch scheduler does.
        """
        now = {name: _evaluate(name, self.arguments[name], s, count, extra) for name, s in states.items()}
        after = {name: _remember(self.arguments[name], s, extra) for name, s in now.items()}
        return now, after

    def group(self, path: str) -> tuple[str, ...]:
        """Which pattern decides each argument for ``path``; equal groups have equal values."""
        return tuple(_group(value, path) for value in self.arguments.values())

    def resolve(self, states: dict[str, Any], path: str, dtype: Any, compute_dtype: Any) -> Values:
        """The values for the parameter at ``path``."""
        return Values(
            dtype,
            compute_dtype,
            {
                name: _resolve(value, states.get(name), path, compute_dtype)
                for name, value in self.arguments.items()
            },
        )


def _structural(name: str, value: Any) -> Any:
    if isinstance(value, ByPath):
        return value.map(lambda each: _structural(name, each))
    if _is_array(value) or callable(value):
        raise TypeError(
            f"{name} decides what is compiled and must be a fixed value, not an array or a schedule; "
            f"got {value!r}."
        )
    return value


def _tuple(name: str, value: Any, length: int, optional: bool) -> Any:
    if isinstance(value, ByPath):
        return value.map(lambda each: _tuple(name, each, length, optional))
    if not isinstance(value, tuple | list) or callable(value):
        raise TypeError(f"{name} must be a tuple of exactly {length} values; got {value!r}.")
    if len(value) != length:
        raise ValueError(f"{name} must be a tuple of exactly {length} values; got {value!r}.")
    return tuple(_number(f"{name}[{i}]", each, optional=optional) for i, each in enumerate(value))


def _number(name: str, value: Any, changeable: bool = False, optional: bool = False) -> Any:
    if isinstance(value, ByPath):
        return value.map(lambda each: _number(name, each, changeable, optional))
    if optional and value is None:
        return None
    if callable(value):
        return value
    if isinstance(value, np.floating | np.integer | np.bool_):
        value = value.item()
    if isinstance(value, int | float):
        return np.asarray(value, np.float64) if changeable else value
    if _is_array(value):
        _require_scalar(name, value)
        return value
    raise TypeError(
        f"{name} must be a number, an array, a schedule, a stateful schedule or by_path(...) of these; "
        f"got {value!r} of type {type(value).__name__}."
    )


def _require_scalar(name: str, value: Any) -> None:
    if np.ndim(value) != 0:
        raise ValueError(f"{name} must be a scalar; got an array of shape {np.shape(value)}.")
    if jnp.iscomplexobj(value):
        raise TypeError(f"{name} must be a real number; got {value!r}.")


def _check_patterns(name: str, value: Any, paths: Sequence[str]) -> None:
    if _is_tuple(value):
        for each in value:
            _check_patterns(name, each, paths)
    elif isinstance(value, ByPath):
        value.check(name, paths)
        for _, each in value.patterns:
            _check_patterns(name, each, paths)


def _init(name: str, value: Any, dtype: Any) -> Any:
    if isinstance(value, ByPath):
        return {pattern: _init(name, each, dtype) for pattern, each in value.choices().items()}
    if _is_tuple(value):
        return tuple(_init(f"{name}[{i}]", each, dtype) for i, each in enumerate(value))
    if _is_stateful(value):
        state = jax.tree.map(jnp.array, value.init())
        return Scheduled(_scalar(name, value(state), dtype), state)
    if callable(value):
        return Scheduled(_scalar(name, value(jnp.zeros([], jnp.int32)), dtype), ())
    return _scalar(name, value, dtype) if _is_array(value) else None


def _evaluate(name: str, value: Any, state: Any, count: jax.Array, extra: dict[str, Any]) -> Any:
    if isinstance(value, ByPath):
        return {p: _evaluate(name, each, state[p], count, extra) for p, each in value.choices().items()}
    if _is_tuple(value):
        pairs = enumerate(zip(value, state, strict=True))
        return tuple(_evaluate(f"{name}[{i}]", v, s, count, extra) for i, (v, s) in pairs)
    if not isinstance(state, Scheduled):
        return state
    current = value(state.state, **extra) if _is_stateful(value) else value(count)
    return Scheduled(_scalar(name, current, state.value.dtype), state.state)


def _remember(value: Any, state: Any, extra: dict[str, Any]) -> Any:
    if isinstance(value, ByPath):
        return {p: _remember(each, state[p], extra) for p, each in value.choices().items()}
    if _is_tuple(value):
        return tuple(_remember(v, s, extra) for v, s in zip(value, state, strict=True))
    if not _is_stateful(value):
        return state
    return Scheduled(state.value, value.update(state.state, **extra))


def _group(value: Any, path: str) -> str:
    if isinstance(value, ByPath):
        pattern = value.match(path)
        return f"{pattern}:{_group(value.choices()[pattern], path)}"
    if _is_tuple(value):
        return ",".join(_group(each, path) for each in value)
    return ""


def _resolve(value: Any, state: Any, path: str, dtype: Any) -> Any:
    if isinstance(value, ByPath):
        pattern = value.match(path)
        return _resolve(value.choices()[pattern], state and state[pattern], path, dtype)
    if _is_tuple(value):
        states = state or (None,) * len(value)
        return tuple(_resolve(v, s, path, dtype) for v, s in zip(value, states, strict=True))
    if state is None:
        return value
    return (state.value if isinstance(state, Scheduled) else state).astype(dtype)


def _scalar(name: str, value: Any, dtype: Any) -> jax.Array:
    """A scalar for the state."""
    # Strongly typed, lest the second step compiles again; a copy, lest donating the state deletes an
    # array of the user's.
    _require_scalar(name, value)
    return jnp.array(value, dtype, copy=True)
