"""The state of an optimizer, from PyTorch and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import optax

from jaxopt_core.interop.arrays import in_place_of
from jaxopt_core.interop.flat import lbfgs_from_torch, lbfgs_to_torch
from jaxopt_core.interop.groups import (
    Names,
    TorchGroup,
    owned_names,
    paths_of,
    read_groups,
    require_optimizer,
)
from jaxopt_core.interop.kinds import FLAGS
from jaxopt_core.interop.layout import Layout, LayoutError
from jaxopt_core.interop.nested import Found, find, replaced, state_in
from jaxopt_core.interop.parameters import known_leaves
from jaxopt_core.interop.slots import NO_STEP, check_axes, slots_from_torch, slots_to_torch
from jaxopt_core.interop.steps import step_dtype, steps_of, uncounted, with_steps
from jaxopt_core.interop.values import NextValues, agrees, carried, from_scheduler, in_group
from jaxopt_core.leafwise import OptimizerState
from jaxopt_core.tree import Leaves, flatten, is_absent

__all__ = ["optimizer_from_torch", "optimizer_to_torch"]


def optimizer_from_torch(
    tx: optax.GradientTransformation,
    state_dict: Mapping[str, Any],
    layout: Layout,
    params: Any,
    *,
    names: Names | None = None,
    count: int | None = None,
    scheduler: Mapping[str, Any] | None = None,
) -> Any:
    """The state with which ``tx`` goes on where a PyTorch optimizer stopped.

    Args:
      tx: one of this package's optimizers, alone or inside ``optax.chain`` and the like.
      state_dict: PyTorch's ``optimizer.state_dict()``, of arrays or torch tensors.
      layout: of the model.
      params: the parameters; ``None`` in place of those that PyTorch's optimizer was not given. Parameters
        that it has and that never had a gradient need nothing.
      names: PyTorch's names of the optimizer's parameters, in the order of its groups. Default: the
        ``param_names`` in the state dict; else the model's order, in which several groups are told apart by
        shapes and by the fixed hyperparameters of ``tx``, if there is only one way.
      count: steps made so far, which drive the schedules. Default: the largest ``step`` in the state. PyTorch
        keeps none for SGD, Muon and LBFGS: for these it is what ``scheduler`` tells, or 1 (0 without a
        state); where a hyperparameter follows a schedule, one of the two must be given.
      scheduler: PyTorch's ``scheduler.state_dict()``, if ``lr`` of ``tx`` follows a schedule. It is compared
        with the schedule, and needed for the memory of one that is no function of the count.

    Returns:
      What ``tx.init(params)`` returns, with PyTorch's slots, steps and learning rates. What belongs to other
      transformations in ``tx`` is as ``init`` makes it.

    Raises:
      LayoutError: whatever cannot be carried, all of it: fixed hyperparameters that differ, a schedule that
        is elsewhere, slots that are missing, of another shape or dtype, a layout that the optimizer cannot
      have. ValueError: which parameter has which state is not known; ``tx`` is not one optimizer.

    NAdam's ``mu_product`` and ASGD's ``eta`` and ``mu`` are float32 here, as PyTorch makes them. A PyTorch
    run that has itself been resumed holds them in the parameter's dtype; they are rounded.

    Example:
      >>> import jax.numpy as jnp, numpy as np, jaxopt_core as jo
      >>> from jaxopt_core import interop
      >>> params = {"fc": {"kernel": jnp.zeros((3, 2))}}
      >>> layout = interop.make_layout(params, {"fc.weight": (2, 3)})
      >>> state_dict = {
      ...     "state": {0: {"momentum_buffer": np.ones((2, 3), np.float32)}},
      ...     "param_groups": [{"lr": 0.1, "momentum": 0.9, "params": [0]}],
      ... }
      >>> tx = jo.sgd(momentum=0.9)
      >>> state = interop.optimizer_from_torch(tx, state_dict, layout, params)
      >>> print(state.slots["momentum_buffer"]["fc"]["kernel"].shape, state.hyperparams["lr"])
      (3, 2) 0.1
    """
    require_optimizer(state_dict)
    found = find(tx, params)
    leaves, problems = _leaves(found, layout, params)
    owned = owned_names(layout, leaves, problems)
    problems += check_axes(found, leaves, layout) if not problems else []
    _raise_if(problems)

    def agreeing(name: str, group: Mapping[str, Any]) -> bool:
        return all(agrees(found, path, group) for path in layout.paths(name))

    groups = read_groups(state_dict, layout, owned, names, agreeing)
    opt_state = tx.init(params)
    old: Any = state_in(opt_state)
    theirs = {n: state_dict["state"].get(i, {}) for group in groups for n, i in zip(*group[1:], strict=True)}
    if found.kind == "LBFGS":
        slots = theirs[groups[0].names[0]]
        given = count if count is not None else uncounted(found, old, int(bool(slots)), scheduler)
        hyperparams, problems = carried(found, old.hyperparams, {"": groups[0].values}, given, scheduler)
        vectors, wrong = lbfgs_from_torch(old, layout, leaves, groups[0].names, slots, given or 0)
        _raise_if(problems + wrong)
        return replaced(opt_state, vectors._replace(hyperparams=hyperparams))
    slots, steps, problems = slots_from_torch(found, old.slots, leaves, layout, theirs)
    known = [step for step in steps.values() if step is not None]
    if count is None:
        count = max(known, default=0)
        if found.kind in NO_STEP:
            count = uncounted(found, old, int(None in steps.values()), scheduler)
    by_leaf = {path: g.values for g in groups for name in g.names for path in layout.paths(name)}
    hyperparams, wrong = carried(found, old.hyperparams, by_leaf, count, scheduler)
    _raise_if(problems + wrong)
    made = {path: max(count or 0, 1) if step is None else step for path, step in steps.items()}
    if found.kind in NO_STEP and set(made.values()) == {0} and not old.slots:
        made = dict.fromkeys(made, count or 0)  # without slots PyTorch keeps nothing
    new = OptimizerState(in_place_of(old.count, np.asarray(count or 0)), hyperparams, slots)
    return replaced(opt_state, with_steps(new, leaves, made))


def optimizer_to_torch(
    tx: optax.GradientTransformation,
    opt_state: Any,
    layout: Layout,
    params: Any,
    *,
    names: Names | None = None,
    like: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The ``state_dict`` with which PyTorch's optimizer goes on where ``tx`` stopped.

    Args:
      tx: one of this package's optimizers, alone or inside ``optax.chain`` and the like.
      opt_state: its state.
      layout: of the model.
      params: the parameters; ``None`` in place of those that the optimizer does not have.
      names: PyTorch's names of the optimizer's parameters, a list for each group. Default: those of ``like``;
        else the model's order, in one group for each combination of hyperparameters.
      like: a state dict of the PyTorch optimizer. From it come the groups, ``param_names``, the flags
        (``foreach``, ``fused``, ...) and whatever schedulers keep in the groups.

    Returns:
      ``{"state": {id: slots}, "param_groups": [...]}`` of arrays and Python numbers, as PyTorch writes it,
      with the hyperparameters that the next update uses. As in PyTorch, a parameter that never had a
      gradient has no state. Without ``like`` the groups hold ``param_names``.

    Raises:
      LayoutError: what cannot be carried, all of it.
      ValueError: the order of PyTorch's parameters is not known; ``tx`` is not one optimizer.

    PyTorch's ``load_state_dict`` casts NAdam's ``mu_product`` and ASGD's ``eta`` and ``mu`` to the
    parameter's dtype. A float64 or bfloat16 run that goes on from any state dict, PyTorch's own included, is
    therefore not quite the one that was not interrupted.

    Example:
      >>> import jax.numpy as jnp, jaxopt_core as jo
      >>> from jaxopt_core import interop
      >>> params = {"fc": {"kernel": jnp.zeros((3, 2))}}
      >>> layout = interop.make_layout(params, {"fc.weight": (2, 3)})
      >>> tx = jo.sgd(lr=0.1, momentum=0.9)
      >>> updates, opt_state = tx.update(params, tx.init(params), params)
      >>> state_dict = interop.optimizer_to_torch(tx, opt_state, layout, params)
      >>> state_dict["state"][0]["momentum_buffer"].shape, state_dict["param_groups"][0]["lr"]
      ((2, 3), 0.1)
    """
    found = find(tx, params)
    state = state_in(opt_state)
    leaves, problems = _leaves(found, layout, params)
    owned = owned_names(layout, leaves, problems)
    problems += check_axes(found, leaves, layout) if not problems else []
    _raise_if(problems)
    values = NextValues(found, state.hyperparams, int(state.count))

    def value_of(name: str) -> dict[str, Any]:
        return values.at(layout.paths(name)[0])

    if like is not None:
        require_optimizer(like)
        groups = read_groups(like, layout, owned, names)
    else:
        groups = _new_groups(found.kind, layout, owned, names, value_of)
        groups = [
            g._replace(values={**g.values, **from_scheduler(found, layout.paths(g.names[0])[0])})
            for g in groups
        ]
    for group in groups:
        paths = paths_of(group, layout)
        differing = [path for path in paths if values.at(path) != values.at(paths[0])]
        problems += [f"{path!r} is in one group with {paths[0]!r} and has other values" for path in differing]
    _raise_if(problems)
    ids = {name: key for group in groups for name, key in zip(group.names, group.ids, strict=True)}
    if found.kind == "LBFGS":
        first = groups[0].names[0]
        theirs = (
            {first: lbfgs_to_torch(state, layout, leaves, groups[0].names)} if int(state.func_evals) else {}
        )
    else:
        steps = steps_of(state, leaves)
        dtype = step_dtype(like)
        slots = {name: tree for name, tree in state.slots.items() if name != "step"}
        theirs, problems = slots_to_torch(found, slots, leaves, layout, steps, list(ids), dtype)
        _raise_if(problems)
    return {
        "state": {ids[name]: theirs[name] for name in ids if name in theirs},
        "param_groups": [_group(g, value_of(g.names[0]) if g.names else {}) for g in groups],
    }


def _raise_if(problems: list[str]) -> None:
    if problems:
        raise LayoutError("The optimizer cannot be carried over", problems)


def _leaves(found: Found, layout: Layout, params: Any) -> tuple[Leaves, list[str]]:
    """The parameters that the optimizer has, which may be fewer than there are in params."""
    given = flatten(params)
    values = dict(zip(given.paths, given.values, strict=True))
    pairs = zip(found.leaves.paths, found.leaves.values, strict=True)
    leaves = found.leaves._replace(values=[v if is_absent(v) else values[path] for path, v in pairs])
    return leaves, known_leaves(leaves, layout)


def _new_groups(
    kind: str, layout: Layout, owned: Sequence[str], names: Names | None, key: Callable[[str], Any]
) -> list[TorchGroup]:
    if names is None and layout.order is None:
        raise ValueError(
            "The layout does not know the order of PyTorch's parameters: give the model's state dict to "
            "make_layout, or names=[...], or like=..."
        )
    if names is not None and not any(isinstance(name, str) for name in names):
        lists = [list(each) for each in names]
    else:
        by_values: dict[Any, list[str]] = {}
        for name in owned if names is None else names:
            by_values.setdefault(tuple(key(str(name)).items()), []).append(str(name))
        lists = list(by_values.values())
    ids = iter(range(sum(map(len, lists))))
    groups = [
        {**FLAGS[kind], "params": [next(ids) for _ in each], "param_names": list(each)} for each in lists
    ]
    return read_groups({"state": {}, "param_groups": groups}, layout, owned)


def _group(group: TorchGroup, values: Mapping[str, Any]) -> dict[str, Any]:
    kept = dict(group.values)
    new = {name: in_group(value, kept[name]) if name in kept else value for name, value in values.items()}
    return kept | new | {"params": list(group.ids)}
