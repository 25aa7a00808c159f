"""The state of an optimizer, from PyTorch and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import optax

from jaxopt_core.groups import by_path
from jaxopt_core.hyperparams import Scheduled
from jaxopt_core.interop.arrays import as_numpy, in_place_of, is_tensor, number
from jaxopt_core.interop.flat import lbfgs_from_torch, lbfgs_to_torch
from jaxopt_core.interop.groups import Names, TorchGroup, owned_names, read_groups, require_optimizer
from jaxopt_core.interop.kinds import FLAGS, KINDS, defaults, kind_named
from jaxopt_core.interop.layout import Layout, LayoutError
from jaxopt_core.interop.nested import Found, find, replaced, state_in
from jaxopt_core.interop.parameters import known_leaves
from jaxopt_core.interop.patterns import telling
from jaxopt_core.interop.slots import NO_STEP, check_axes, slots_from_torch, slots_to_torch
from jaxopt_core.interop.values import NextValues, agrees, carried, in_group
from jaxopt_core.leafwise import OptimizerState, count_per_parameter
from jaxopt_core.tree import Leaves, flatten, is_absent

__all__ = ["from_torch_optimizer", "optimizer_from_torch", "optimizer_to_torch"]


def optimizer_from_torch(
    tx: optax.GradientTransformation,
    state_dict: Mapping[str, Any],
    layout: Layout,
    params: Any,
    *,
    names: Names | None = None,
    count: int | None = None,
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
        keeps none for SGD, Muon and LBFGS: for these it is 1 (0 without a state) unless it is given, and must
        be given where a hyperparameter follows a schedule.

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
        given = count if count is not None else _unless_scheduled(old, int(bool(slots)))
        hyperparams, problems = carried(found, old.hyperparams, {"": groups[0].values}, given)
        vectors, wrong = lbfgs_from_torch(old, layout, leaves, groups[0].names, slots, given or 0)
        _raise_if(problems + wrong)
        return replaced(opt_state, vectors._replace(hyperparams=hyperparams))
    slots, steps, problems = slots_from_torch(found, old.slots, leaves, layout, theirs)
    known = [step for step in steps.values() if step is not None]
    if count is None:
        count = max(known, default=0)
        if found.kind in NO_STEP:
            count = _unless_scheduled(old, int(None in steps.values()))
    by_leaf = {path: g.values for g in groups for name in g.names for path in layout.paths(name)}
    hyperparams, wrong = carried(found, old.hyperparams, by_leaf, count)
    _raise_if(problems + wrong)
    made = {path: max(count or 0, 1) if step is None else step for path, step in steps.items()}
    if found.kind in NO_STEP and set(made.values()) == {0} and not old.slots:
        made = dict.fromkeys(made, count or 0)  # without slots PyTorch keeps nothing
    new = OptimizerState(in_place_of(old.count, np.asarray(count or 0)), hyperparams, slots)
    return replaced(opt_state, _with_steps(new, leaves, made))


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
    for group in groups:
        paths = _paths(group, layout)
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
        steps = _steps(state, leaves)
        dtype = _step_dtype(like)
        slots = {name: tree for name, tree in state.slots.items() if name != "step"}
        theirs, problems = slots_to_torch(found, slots, leaves, layout, steps, list(ids), dtype)
        _raise_if(problems)
    return {
        "state": {ids[name]: theirs[name] for name in ids if name in theirs},
        "param_groups": [_group(g, value_of(g.names[0]) if g.names else {}) for g in groups],
    }


def from_torch_optimizer(
    state_dict: Mapping[str, Any],
    layout: Layout,
    params: Any,
    kind: str,
    *,
    names: Names | None = None,
    count: int | None = None,
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
    _raise_if(problems)
    groups = read_groups(state_dict, layout, owned_names(layout, leaves, problems), names)
    _raise_if(problems)
    options = {
        name: _argument([(_paths(group, layout), number(group.values[name])) for group in groups])
        for name in defaults(kind)
        if all(name in group.values for group in groups)
    }
    if kind in ("Adafactor", "Muon"):
        options["axes"] = layout.torch_axes(params)
    tx = KINDS[kind](**options | arguments)
    order = [list(group.names) for group in groups]
    return tx, optimizer_from_torch(tx, state_dict, layout, params, names=order, count=count)


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


def _unless_scheduled(state: Any, otherwise: int) -> int | None:
    nodes = jax.tree.leaves(state.hyperparams, is_leaf=lambda node: isinstance(node, Scheduled))
    return None if any(isinstance(node, Scheduled) for node in nodes) else otherwise


def _with_steps(state: OptimizerState, leaves: Leaves, steps: Mapping[str, int]) -> OptimizerState:
    if set(steps.values()) <= {int(state.count)}:
        return state
    state = count_per_parameter(state, leaves.unflatten(leaves.values))
    per_leaf = leaves.scatter({"step": state.slots["step"]})
    for path, mine in zip(leaves.paths, per_leaf, strict=True):
        if mine:
            mine["step"] = in_place_of(mine["step"], np.asarray(steps[path]))
    return state._replace(slots=state.slots | {"step": leaves.gather(per_leaf, "step")})


def _steps(state: OptimizerState, leaves: Leaves) -> dict[str, int]:
    if "step" not in state.slots:
        return {path: int(state.count) for path, _ in leaves.present()}
    per_leaf = leaves.scatter({"step": state.slots["step"]})
    return {path: int(s["step"]) for path, s in zip(leaves.paths, per_leaf, strict=True) if s}


def _step_dtype(like: Mapping[str, Any] | None) -> np.dtype[Any]:
    slots = like["state"].values() if like is not None else ()
    steps = [as_numpy(each["step"]) for each in slots if is_tensor(each.get("step"))]
    return steps[0].dtype if steps else np.dtype(np.float32)


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


def _paths(group: TorchGroup, layout: Layout) -> list[str]:
    return [path for name in group.names for path in layout.paths(name)]


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
