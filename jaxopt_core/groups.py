"""Different values for different parameters: PyTorch's parameter groups."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxopt_core.tree import flatten, is_absent

__all__ = ["ByPath", "by_path"]


@dataclasses.dataclass(frozen=True)
class ByPath:
    """Different values for different parameters; made by :func:`by_path`."""

    patterns: tuple[tuple[str, Any], ...]
    default: Any

    def choices(self) -> dict[str, Any]:
        """Every pattern's value, and the default's under ``"default"``."""
        return dict(self.patterns) | {"default": self.default}

    def map(self, fn: Callable[[Any], Any]) -> ByPath:
        """The same patterns with ``fn(value)`` for every value."""
        return ByPath(tuple((p, fn(v)) for p, v in self.patterns), fn(self.default))

    def match(self, path: str) -> str:
        """Names the first pattern found in ``path``, or ``"default"``."""
        return next((p for p, _ in self.patterns if re.search(p, path)), "default")

    def tree(self, params: Any) -> Any:
        """The value of every parameter, in the tree of the parameters.

        A label for each is what ``optax.partition`` asks for, a flag what ``optax.masked`` does; both take
        this method itself in place of its result.

        Raises:
          ValueError: a pattern matches no parameter.

        Example:
          >>> import jax.numpy as jnp, jaxopt_core as jo
          >>> labels = jo.by_path({"^backbone": "frozen"}, default="trained").tree
          >>> labels({"backbone": {"kernel": jnp.ones(2)}, "head": jnp.ones(2)})
          {'backbone': {'kernel': 'frozen'}, 'head': 'trained'}
        """
        leaves = flatten(params)
        self.check("by_path(...).tree", leaves.paths)
        choices = self.choices()
        values = zip(leaves.paths, leaves.values, strict=True)
        return leaves.unflatten([v if is_absent(v) else choices[self.match(path)] for path, v in values])

    def check(self, name: str, paths: Sequence[str]) -> None:
        """Raises a ValueError if a pattern of the argument ``name`` matches none of the paths."""
        for pattern, _ in self.patterns:
            if not any(re.search(pattern, path) for path in paths):
                shown = ", ".join(paths[:8]) + (", ..." if len(paths) > 8 else "")
                raise ValueError(
                    f"by_path pattern {pattern!r} of {name} matches no parameter. The paths are: {shown}."
                )


def by_path(patterns: Mapping[str, Any], *, default: Any) -> ByPath:
    r"""Gives a hyperparameter different values for different parameters.

    This is what PyTorch's parameter groups do, without restructuring parameters or state. A
    parameter's path is its keys joined by ``/`` (``"layers/0/kernel"``); the first pattern that
    ``re.search`` finds in it decides. Paths are resolved while tracing and cost nothing at run time.

    Args:
      patterns: regular expression -> value; a value may be anything that the argument itself takes.
      default: the value of every parameter that no pattern matches.

    Returns:
      An object to pass in place of the hyperparameter.

    Raises:
      TypeError: ``patterns`` is not a dict from strings.
      ValueError: a pattern is not a regular expression. A pattern that matches no parameter is an
        error too, raised by the optimizer's ``init``: it is nearly always a typo.

    Example:
      >>> import jax.numpy as jnp, jaxopt_core as jo
      >>> tx = jo.adamw(weight_decay=jo.by_path({r"(bias|scale)$": 0.0}, default=0.01))
      >>> state = tx.init({"dense": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}})
    """
    is_mapping: bool = isinstance(patterns, Mapping)  # asked of users who have no type checker
    if not is_mapping or not all(isinstance(pattern, str) for pattern in patterns):
        raise TypeError(f"by_path expects a dict from regular expression to value; got {patterns!r}.")
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"by_path pattern {pattern!r} is not a regular expression: {error}.") from None
        if pattern == "default":
            raise ValueError(
                "by_path: give the value of all other parameters as default=..., not as a pattern."
            )
    return ByPath(tuple(patterns.items()), default)
