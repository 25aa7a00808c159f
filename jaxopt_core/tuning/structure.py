"""Which parts of a configuration are numbers for a program, and which decide the program."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray

from jaxopt_core.tuning.space import Config

__all__ = ["Group", "group"]


class Group(NamedTuple):
    """Trials that one program serves.

    Attributes:
      fixed: name -> value of what is equal in all of them and compiled in: strings, flags, whole numbers,
        tuples.
      traced: names of what differs: real numbers, arguments of the program.
      members: their places in the list of configurations.
    """

    fixed: tuple[tuple[str, Any], ...]
    traced: tuple[str, ...]
    members: tuple[int, ...]

    def stack(self, configs: Sequence[Config]) -> dict[str, NDArray[Any]]:
        """The numbers of the members, in their order."""
        rows = [configs[i] for i in self.members]
        return {name: np.asarray([row[name] for row in rows], _dtype(rows[0][name])) for name in self.traced}

    def join(self, numbers: dict[str, Any]) -> Config:
        """A configuration with numbers, or tracers, in their places."""
        return {**dict(self.fixed), **numbers}

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal for groups that share a program."""
        return tuple(
            (name, type(value), value) for name, value in self.fixed
        ), self.traced  # 1 == True == 1.0


def group(configs: Sequence[Config], traced: Collection[str] = ()) -> list[Group]:
    """Sorts configurations into groups that each need one program.

    Args:
      configs: the configurations; they need not have the same names.
      traced: names of whole numbers that do not decide the program, such as a seed. Default: none.

    Raises:
      TypeError: a value that is no number cannot be compared and hashed.

    Example:
      >>> configs = [{"lr": 0.1, "layers": 2}, {"lr": 0.2, "layers": 3}, {"lr": 0.3, "layers": 2}]
      >>> [(dict(g.fixed), g.traced, g.members) for g in group(configs)]
      [({'layers': 2}, ('lr',), (0, 2)), ({'layers': 3}, ('lr',), (1,))]
    """
    found: dict[Any, tuple[Group, list[int]]] = {}
    for i, config in enumerate(configs):
        moving = tuple(sorted(name for name, value in config.items() if _is_traced(name, value, traced)))
        fixed = tuple(sorted((name, value) for name, value in config.items() if name not in moving))
        of_one = Group(fixed, moving, ())
        try:
            found.setdefault(of_one.key, (of_one, []))[1].append(i)
        except TypeError as error:
            raise TypeError(
                f"configuration {i}: {error}; what decides a program must be hashable: give tuples, not lists"
            ) from error
    return [each._replace(members=tuple(members)) for each, members in found.values()]


def _is_traced(name: str, value: Any, traced: Collection[str]) -> bool:
    if isinstance(value, bool):
        return False
    return isinstance(value, float | np.floating | jax.Array) or (name in traced and isinstance(value, int))


def _dtype(value: Any) -> Any:
    if isinstance(value, int):
        return np.int32
    return jax.dtypes.canonicalize_dtype(getattr(value, "dtype", np.float64))
