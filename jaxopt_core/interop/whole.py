"""A whole optimizer out of a checkpoint alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jaxopt_core.groups import by_path
from jaxopt_core.interop.arrays import number
from jaxopt_core.interop.groups import Names, owned_names, paths_of, read_groups, require_optimizer
from jaxopt_core.interop.kinds import KINDS, defaults, kind_named
from jaxopt_core.interop.layout import Layout, LayoutError
from jaxopt_core.interop.optimizer import optimizer_from_torch
from jaxopt_core.interop.parameters import known_leaves
from jaxopt_core.interop.patterns import telling
from jaxopt_core.tree import flatten

__all__ = ["from_torch_optimizer"]


def from_torch_optimizer(
    state_dict: Mapping[str, Any],
    layout: Layout,
    params: Any,
    kind: str,
    *,
    names: Names | None = None,
    count: int | None = None,
    scheduler: Mapping[str, Any] | None = None,
    **arguments: Any,
) -> tuple[Any, Any]:
    """The whole optimizer, out of a checkpoint alone.

    Args:
      state_dict: PyTorch's ``optimizer.state_dict()``.
      layout: of the model.
      params: as for :func:`optimizer_from_torch`.
      kind: the class in ``torch.optim``, which the state dict does not say: ``"AdamW"``.
      names: as for :func:`optimizer_from_torch`.
      count: as for :func:`optimizer_from_torch`.
      scheduler: as for :func:`optimizer_from_torch`.
      **arguments: what is to be given to the constructor instead of the checkpoint's value: a schedule.

    Returns:
      ``tx, opt_state``. A hyperparameter that differs between the groups is a ``by_path``.

    Raises:
      LayoutError: as :func:`optimizer_from_torch`.
      ValueError: there is no such optimizer; several groups cannot be told apart.

    Example:
      >>> import jax.numpy as jnp, numpy as np
      >>> from jaxopt_core import interop
      >>> params = {"fc": {"kernel": jnp.zeros((3, 2)), "bias": jnp.zeros(2)}}
      >>> layout = interop.make_layout(params, {"fc.weight": (2, 3), "fc.bias": (2,)})
      >>> state_dict = {
      ...     "state": {},
      ...     "param_groups": [
      ...         {"lr": 0.1, "weight_decay": 0.1, "params": [0], "param_names": ["fc.weight"]},
      ...         {"lr": 0.1, "weight_decay": 0.0, "params": [1], "param_names": ["fc.bias"]},
      ...     ],
      ... }
      >>> tx, opt_state = interop.from_torch_optimizer(state_dict, layout, params, kind="AdamW")
      >>> tx.hyperparams.arguments["weight_decay"]
      ByPath(patterns=(('(^|/)(bias)$', 0.0),), default=0.1)
    """
    require_optimizer(state_dict)
    kind = kind_named(kind)
    leaves = flatten(params)
    problems = known_leaves(leaves, layout)
    owned = owned_names(layout, leaves, problems)
    if problems:
        raise LayoutError("The optimizer cannot be carried over", problems)
    groups = read_groups(state_dict, layout, owned, names)
    options = {
        name: _argument([(paths_of(group, layout), number(group.values[name])) for group in groups])
        for name in defaults(kind)
        if all(name in group.values for group in groups)
    }
    if kind in ("Adafactor", "Muon"):
        options["axes"] = layout.torch_axes(params)
    tx = KINDS[kind](**options | arguments)
    order = [list(group.names) for group in groups]
    opt_state = optimizer_from_torch(
        tx, state_dict, layout, params, names=order, count=count, scheduler=scheduler
    )
    return tx, opt_state


def _argument(groups: Sequence[tuple[list[str], Any]]) -> Any:
    """One value, or a ``by_path`` in which most parameters have the default."""
    by_value: dict[Any, list[str]] = {}
    for paths, value in groups:
        by_value.setdefault(value, []).extend(paths)
    if len(by_value) == 1:
        return next(iter(by_value))
    default = max(by_value, key=lambda value: len(by_value[value]))
    every = [path for paths in by_value.values() for path in paths]
    return by_path(
        {
            telling(paths, [path for path in every if path not in set(paths)]): value
            for value, paths in by_value.items()
            if value != default and paths
        },
        default=default,
    )
