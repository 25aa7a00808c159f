"""What to search: ranges, choices, and parts that exist only under a condition."""

from __future__ import annotations

import dataclasses
import difflib
import math
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import optuna

__all__ = ["Choice", "Config", "Float", "Integer", "Space", "SpaceError"]

Config = dict[str, Any]
Condition = Mapping[str, Any]


class SpaceError(ValueError):
    """A space that cannot be searched; the message names the parameter, what was expected and found."""


@dataclasses.dataclass(frozen=True)
class Float:
    """A real number between two bounds, both included.

    Args:
      low: smallest value.
      high: largest value.
      log: search the exponent, as for a learning rate. Default False.
      when: name -> value, or tuple of values, that other parameters must have for this one to exist.
        Default: it always does.
    """

    low: float
    high: float
    log: bool = False
    when: Condition | None = None

    def problem(self) -> str | None:
        """What is wrong with the bounds, if anything."""
        return _bounds_problem(self.low, self.high, self.log, (int, float), "numbers")

    def at(self, fraction: float) -> float:
        """The value at a fraction, from 0 to 1, of the range."""
        if not self.log:
            return min(self.high, self.low + fraction * (self.high - self.low))
        low, high = math.log(self.low), math.log(self.high)
        return min(self.high, max(self.low, math.exp(low + fraction * (high - low))))

    def suggest(self, trial: optuna.Trial, name: str) -> float:
        """Asks Optuna."""
        return trial.suggest_float(name, self.low, self.high, log=self.log)


@dataclasses.dataclass(frozen=True)
class Integer:
    """A whole number between two bounds, both included; the arguments are those of :class:`Float`."""

    low: int
    high: int
    log: bool = False
    when: Condition | None = None

    def problem(self) -> str | None:
        """What is wrong with the bounds, if anything."""
        return _bounds_problem(self.low, self.high, self.log, (int,), "whole numbers")

    def at(self, fraction: float) -> int:
        """The value at a fraction, from 0 to 1, of the range; each number has an equal part of it."""
        if not self.log:
            return min(self.high, self.low + int(fraction * (self.high - self.low + 1)))
        low, high = math.log(self.low - 0.5), math.log(self.high + 0.5)
        return min(self.high, max(self.low, round(math.exp(low + fraction * (high - low)))))

    def suggest(self, trial: optuna.Trial, name: str) -> int:
        """Asks Optuna."""
        return trial.suggest_int(name, self.low, self.high, log=self.log)


@dataclasses.dataclass(frozen=True)
class Choice:
    """One of several values: strings, numbers, flags, ``None``, tuples.

    Args:
      values: to choose from, two or more.
      when: as for :class:`Float`.
    """

    values: tuple[Any, ...]
    when: Condition | None = None

    def __post_init__(self) -> None:
        # A list cannot be the key of a group of trials that share a program.
        object.__setattr__(self, "values", tuple(_frozen(value) for value in self.values))

    def problem(self) -> str | None:
        """What is wrong with the values, if anything."""
        if len(self.values) < 2:
            return f"expected two or more choices, found {list(self.values)}"
        if len({_label(value) for value in self.values}) < len(self.values):
            return f"expected different choices, found {list(self.values)}"
        return None

    def at(self, fraction: float) -> Any:
        """The value at a fraction, from 0 to 1, of the list."""
        return self.values[min(len(self.values) - 1, int(fraction * len(self.values)))]

    def suggest(self, trial: optuna.Trial, name: str) -> Any:
        """Asks Optuna, which stores labels: databases hold no tuples."""
        return self.read(trial.suggest_categorical(name, [_label(value) for value in self.values]))

    def read(self, label: Any) -> Any:
        """The value with a label."""
        return {_label(value): value for value in self.values}[label]


Dimension = Float | Integer | Choice


class Space:
    """Named parameters to search, and constants.

    Args:
      dimensions: name -> :class:`Float`, :class:`Integer`, :class:`Choice`, or a constant.

    Raises:
      SpaceError: bounds out of order, a logarithm of 0, fewer than two choices, a condition that is no
        mapping, on an unknown parameter, on a value that it never has, or on itself.

    Example:
      >>> space = Space({
      ...     "lr": Float(1e-4, 1e-1, log=True),
      ...     "optimizer": Choice(("adamw", "sgd")),
      ...     "momentum": Float(0.5, 0.99, when={"optimizer": "sgd"}),
      ...     "epochs": 20,
      ... })
      >>> config = space.sample(np.random.default_rng(1))
      >>> {name: round(v, 3) if isinstance(v, float) else v for name, v in config.items()}
      {'lr': 0.003, 'optimizer': 'sgd', 'momentum': 0.571, 'epochs': 20}
      >>> Space({"lr": Float(0.0, 0.1, log=True)})
      Traceback (most recent call last):
      ...
      jaxopt_core.tuning.space.SpaceError: lr: a logarithmic range must begin above 0, found low=0.0
    """

    def __init__(self, dimensions: Mapping[str, Any]) -> None:
        self.dimensions = {
            name: dataclasses.replace(each, when=_condition(name, each.when))
            for name, each in dimensions.items()
            if isinstance(each, Dimension)
        }
        self.constants = {
            name: _frozen(value) for name, value in dimensions.items() if name not in self.dimensions
        }
        self._names = list(dimensions)
        self._check()
        self._order = list(self._parents_first())

    @classmethod
    def from_toml(cls, path: str | Path) -> Space:
        """Reads a space from a TOML file: a table for each parameter, a plain value for each constant.

        ``low``, ``high`` and ``log`` make a range, of whole numbers if both bounds are; ``choices`` a
        choice; ``when`` a condition::

            epochs = 20

            [lr]
            low = 1e-4
            high = 1e-1
            log = true

            [momentum]
            low = 0.5
            high = 0.99
            when = { optimizer = "sgd" }

            [optimizer]
            choices = ["adamw", "sgd"]

        Raises:
          SpaceError: names the file and, within it, the parameter.
        """
        try:
            table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise SpaceError(f"{path}: cannot be read ({error.strerror})") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise SpaceError(f"{path}: not a TOML file: {error}") from error
        try:
            return cls({name: _from_table(name, value) for name, value in table.items()})
        except SpaceError as error:
            raise SpaceError(f"{path}: {error}") from error

    def sample(self, rng: np.random.Generator) -> Config:
        """Draws a configuration."""
        # One number for each parameter, active or not: what one is does not move the others.
        fractions = dict(zip(self._order, rng.random(len(self._order)), strict=True))
        return self._build(lambda name, each: each.at(float(fractions[name])))

    def suggest(self, trial: optuna.Trial) -> Config:
        """Lets Optuna's sampler choose a configuration."""
        return self._build(lambda name, each: each.suggest(trial, name))

    def restore(self, params: Mapping[str, Any]) -> Config:
        """The configuration of what Optuna has stored, as far as it has: a worker may die in between."""
        read = {
            name: each.read(params[name]) if isinstance(each, Choice) else params[name]
            for name, each in self.dimensions.items()
            if name in params
        }
        return {name: value for name, value in {**self.constants, **read}.items() if name in self._names}

    def __repr__(self) -> str:
        inside = ", ".join(
            f"{name!r}: {self.dimensions.get(name, self.constants.get(name))!r}" for name in self._names
        )
        return f"Space({{{inside}}})"

    def _build(self, choose: Any) -> Config:
        config = dict(self.constants)
        for name in self._order:
            each = self.dimensions[name]
            conditions = (each.when or {}).items()
            if all(parent in config and config[parent] in allowed for parent, allowed in conditions):
                config[name] = choose(name, each)
        return {name: config[name] for name in self._names if name in config}

    def _check(self) -> None:
        if not self.dimensions:
            raise SpaceError("expected at least one parameter with a range or choices, found none")
        for name, each in self.dimensions.items():
            if problem := each.problem():
                raise SpaceError(f"{name}: {problem}")
            for parent, allowed in (each.when or {}).items():
                self._check_condition(name, parent, allowed)

    def _check_condition(self, name: str, parent: str, allowed: tuple[Any, ...]) -> None:
        if parent not in self._names:
            near = difflib.get_close_matches(parent, self._names, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(self._names)}"
            raise SpaceError(f"{name}: its condition names {parent!r}, which is not in the space{hint}")
        of = self.dimensions.get(parent)
        possible = (
            of.values if isinstance(of, Choice) else (self.constants.get(parent),) if of is None else None
        )
        if possible is None:
            raise SpaceError(f"{name}: its condition is on {parent!r}, which is a range; expected a choice")
        if impossible := [value for value in allowed if value not in possible]:
            raise SpaceError(
                f"{name}: its condition wants {parent} = {impossible[0]!r}, which never happens; "
                f"{parent} is one of {list(possible)}"
            )

    def _parents_first(self) -> Iterator[str]:
        known, left = set(self.constants), dict(self.dimensions)
        while left:
            ready = [name for name, each in left.items() if set(each.when or {}) <= known]
            if not ready:
                raise SpaceError(f"the conditions of {', '.join(left)} depend on each other")
            yield from ready
            known.update(ready)
            left = {name: each for name, each in left.items() if name not in known}


def _bounds_problem(low: Any, high: Any, log: bool, kinds: tuple[type, ...], words: str) -> str | None:
    if not isinstance(log, bool):
        return f"expected log to be true or false, found {log!r}"
    for bound in (low, high):
        if type(bound) not in kinds or not math.isfinite(bound):
            return f"expected bounds that are finite {words}, found low={low!r}, high={high!r}"
    if not low < high:
        return f"expected low < high, found low={low}, high={high}"
    if log and not low > 0:
        return f"a logarithmic range must begin above 0, found low={low}"
    return None


def _from_table(name: str, value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    allowed = {"choices", "when"} if "choices" in value else {"low", "high", "log", "when"}
    for key in value:
        if key not in allowed:
            near = difflib.get_close_matches(key, allowed, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(sorted(allowed))}"
            raise SpaceError(f"{name}: unknown key {key!r}{hint}")
    if "choices" in value:
        if not isinstance(value["choices"], list):
            raise SpaceError(f"{name}: expected a list of choices, found {value['choices']!r}")
        return Choice(tuple(value["choices"]), value.get("when"))
    if missing := [key for key in ("low", "high") if key not in value]:
        raise SpaceError(f"{name}: expected low and high, or choices; missing is {missing[0]!r}")
    whole = all(isinstance(value[key], int) for key in ("low", "high"))
    return (Integer if whole else Float)(
        value["low"], value["high"], value.get("log", False), value.get("when")
    )


def _frozen(value: Any) -> Any:
    return tuple(_frozen(each) for each in value) if isinstance(value, list | tuple) else value


def _condition(name: str, when: Any) -> dict[str, tuple[Any, ...]]:
    if when is None:
        return {}
    if not isinstance(when, Mapping):
        raise SpaceError(f"{name}: expected when to be {{name: value}}, found {when!r}")
    return {parent: _values(value) for parent, value in when.items()}


def _values(value: Any) -> tuple[Any, ...]:
    """The values that a condition allows: one, or any of a list."""
    frozen = _frozen(value)
    return frozen if isinstance(frozen, tuple) else (frozen,)


def _label(value: Any) -> str | float | int | bool | None:
    return value if value is None or isinstance(value, str | float | int | bool) else str(value)
