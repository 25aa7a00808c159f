"""The state of a scheduler, from PyTorch and back.

Most schedulers are functions of the count and have no state. What PyTorch writes for them is arguments, which
must be those of the schedule here, and counters, which follow from the count.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax

from jaxopt_core.groups import ByPath
from jaxopt_core.hyperparams import Scheduled
from jaxopt_core.interop.arrays import number
from jaxopt_core.interop.layout import LayoutError
from jaxopt_core.interop.nested import find, state_in
from jaxopt_core.schedulers import PlateauState
from jaxopt_core.schedulers._composed import Composition, rate_of
from jaxopt_core.schedulers._nesting import Chain, Leaf, Node, Series
from jaxopt_core.schedulers.base import Scheduler
from jaxopt_core.schedulers.functions import RateState
from jaxopt_core.schedulers.plateau import is_plateau

__all__ = ["left_in_group", "schedule_state", "scheduler_count", "scheduler_from_torch", "scheduler_to_torch"]

_PLATEAU = ("best", "num_bad_epochs", "cooldown_counter", "last_epoch")
_ALIASES = {"anneal_strategy": "_anneal_strategy", "milestones": "_milestones"}


def scheduler_from_torch(schedule: Any, state_dict: Mapping[str, Any], *, lr: Any = None, count: int) -> Any:
    """The state of a schedule that goes on where a PyTorch scheduler stopped.

    :func:`optimizer_from_torch` does this for the schedules inside an optimizer, given ``scheduler=``.

    Args:
      schedule: a schedule of this package.
      state_dict: PyTorch's ``scheduler.state_dict()``.
      lr: the rate of the ``param_group``, where a schedule goes on from the rate it finds. Default: the
        first of the state dict's ``_last_lr``.
      count: updates that the optimizer has made.

    Returns:
      What ``schedule.init()`` returns, for a stateful schedule; ``()`` for a function of the count.

    Raises:
      LayoutError: the arguments differ from those in the state dict, or the counters from the count.

    Example:
      >>> import jaxopt_core as jo
      >>> from jaxopt_core import interop
      >>> schedule = jo.schedulers.reduce_lr_on_plateau(0.1, patience=3)
      >>> theirs = {"best": 0.5, "num_bad_epochs": 2, "cooldown_counter": 0, "last_epoch": 7}
      >>> state = interop.scheduler_from_torch(schedule, theirs, lr=0.01, count=7)
      >>> print(state.best, state.num_bad_epochs, state.lr)
      0.5 2 0.01
    """
    rate = state_dict["_last_lr"][0] if lr is None else lr
    state, problems = schedule_state(schedule, state_dict, rate, count)
    if problems:
        raise LayoutError("The scheduler cannot be carried over", problems)
    return state


def scheduler_to_torch(
    tx: optax.GradientTransformation,
    opt_state: Any,
    params: Any,
    optimizer: Mapping[str, Any],
    *,
    like: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The ``state_dict`` with which PyTorch's scheduler goes on where the learning rate of ``tx`` is.

    Load it, and the optimizer's, into a scheduler and an optimizer constructed as at the start of the run.

    Args:
      tx: the optimizer, whose ``lr`` follows a schedule of this package.
      opt_state: its state.
      params: the parameters.
      optimizer: what :func:`optimizer_to_torch` returned for it.
      like: a state dict of the PyTorch scheduler, whose other entries are kept. Without it there are the
        counters only; PyTorch's constructors know the rest.

    Returns:
      The state dict, nested as PyTorch's for ``SequentialLR`` and ``ChainedScheduler``.

    Raises:
      ValueError: ``lr`` follows no schedule of this package.

    Example:
      >>> import jax.numpy as jnp, jaxopt_core as jo
      >>> from jaxopt_core import interop
      >>> params = {"fc": {"kernel": jnp.zeros((3, 2))}}
      >>> tx = jo.sgd(lr=jo.schedulers.step_lr(0.1, 30))
      >>> _, opt_state = tx.update(params, tx.init(params), params)
      >>> layout = interop.make_layout(params, {"fc.weight": (2, 3)})
      >>> optimizer = interop.optimizer_to_torch(tx, opt_state, layout, params)
      >>> interop.scheduler_to_torch(tx, opt_state, params, optimizer)
      {'last_epoch': 1, '_step_count': 2, '_last_lr': [0.1]}
    """
    found, state = find(tx, params), state_in(opt_state)
    pairs = list(_schedules(found.hyperparams.arguments["lr"], state.hyperparams.get("lr")))
    if not pairs:
        raise ValueError("lr of tx follows no schedule: there is no scheduler's state to write.")
    schedule, memory = pairs[0]
    rates = [number(group["lr"]) for group in optimizer["param_groups"]]
    new = _torch_state(schedule, memory, int(state.count), rates)
    return _merged(copy.deepcopy(dict(like)), new) if like is not None else new


def schedule_state(
    schedule: Any, state_dict: Mapping[str, Any], rate: Any, count: int
) -> tuple[Any, list[str]]:
    """The state of a schedule, and what cannot be carried; see :func:`scheduler_from_torch`."""
    inner, steps = _unwrapped(schedule)
    problems = list(_differing(inner, state_dict))
    plateau = is_plateau(inner)
    by_hand = plateau and inner.rule.per_epoch
    if not by_hand and (made := _first_epoch(state_dict)) is not None:
        expected = _first_epoch(_torch_state(inner, inner.init() if plateau else (), count // steps, [rate]))
        expected = count // steps if plateau else expected
        if made != expected:
            problems.append(
                f"PyTorch's scheduler is at last_epoch={made}; after {count} updates the schedule of tx is "
                f"at {expected}. If it is stepped once an epoch, use per_epoch(schedule, steps_per_epoch)"
            )
    return _state(schedule, state_dict, rate, count), problems


def scheduler_count(schedule: Any, state_dict: Mapping[str, Any]) -> int | None:
    """The number of updates made, as far as a scheduler's state tells."""
    inner, steps = _unwrapped(schedule)
    made = _first_epoch(state_dict)
    if made is None or (is_plateau(inner) and inner.rule.per_epoch):
        return None
    start = 0 if is_plateau(inner) else _first_epoch(_torch_state(inner, (), 0, [])) or 0
    return (made - start) * steps


def left_in_group(schedule: Any) -> dict[str, Any]:
    """What PyTorch's constructor leaves in the parameter group, besides rate and momentum."""
    inner, _ = _unwrapped(schedule)
    group: dict[str, Any] = {}
    if isinstance(inner, Composition):
        inner.node().construct(group)
    elif isinstance(inner, Scheduler):
        inner.enter(group)
    elif not is_plateau(inner) and not isinstance(inner, optax.schedules.StatefulSchedule):
        group["initial_lr"] = float(np.asarray(inner(0)))
    return {name: number(value) for name, value in group.items() if name not in ("lr", "momentum")}


def _schedules(argument: Any, state: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(argument, ByPath):
        for pattern, each in argument.choices().items():
            yield from _schedules(each, state[pattern])
    elif isinstance(state, Scheduled):
        yield argument, state.state


def _unwrapped(schedule: Any) -> tuple[Any, int]:
    """What ``per_epoch`` was given."""
    steps = getattr(schedule, "steps_per_epoch", None)
    return (schedule, 1) if steps is None else (schedule.schedule, steps)


def _state(schedule: Any, state_dict: Mapping[str, Any], rate: Any, count: int) -> Any:
    inner, steps = _unwrapped(schedule)
    if not isinstance(schedule, optax.schedules.StatefulSchedule):
        return ()
    state = inner.init()
    if isinstance(state, PlateauState):
        new = {name: state_dict[name] for name in _PLATEAU} | {"lr": rate}
    elif isinstance(state, RateState):
        new = {"count": count // steps, "lr": rate}
    else:
        raise TypeError(f"{schedule!r} is no schedule of this package: PyTorch's state does not fit it.")
    arrays = {name: jnp.asarray(number(v), getattr(state, name).dtype) for name, v in new.items()}
    state = state._replace(**arrays) if isinstance(state, RateState) else dataclasses.replace(state, **arrays)
    if inner is schedule:
        return state
    return schedule.init()._replace(count=jnp.asarray(count, jnp.int32), state=state)


def _differing(schedule: Any, state_dict: Mapping[str, Any]) -> Iterator[str]:
    if isinstance(schedule, Composition):
        theirs = state_dict.get("_schedulers", ())
        if len(theirs) != len(schedule.children):
            yield f"the schedule of tx is {schedule!r}; PyTorch's consists of {len(theirs)} schedulers"
            return
        if schedule.milestones is not None:
            ours, milestones = list(schedule.milestones), list(state_dict["_milestones"])
            if ours != milestones:
                yield f"milestones of the schedule: tx has {ours}, the checkpoint {milestones}"
        for child, each in zip(schedule.children, theirs, strict=True):
            yield from _differing(rate_of(child), each)
        return
    arguments = schedule.rule if is_plateau(schedule) else schedule
    if not dataclasses.is_dataclass(arguments):
        return
    for field in dataclasses.fields(arguments):
        ours, name = getattr(arguments, field.name), _ALIASES.get(field.name, field.name)
        theirs = state_dict.get(name, state_dict.get(field.name))
        if isinstance(theirs, Mapping):  # MultiStepLR counts how often each milestone is named
            theirs = tuple(sorted(each for each, times in theirs.items() for _ in range(times)))
        if theirs is not None and isinstance(ours, int | float | str | tuple) and not _same(ours, theirs):
            yield f"{field.name} of the schedule: tx has {ours!r}, the checkpoint {theirs!r}"


def _same(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, int | float) and isinstance(theirs, int | float):
        return math.isclose(ours, theirs, rel_tol=1e-7)
    return bool(ours == theirs)


def _first_epoch(state_dict: Mapping[str, Any]) -> int | None:
    """The ``last_epoch`` of the scheduler, or of the first in a chain."""
    while "last_epoch" not in state_dict:
        if not state_dict.get("_schedulers"):
            return None
        state_dict = state_dict["_schedulers"][0]
    return int(state_dict["last_epoch"])


def _torch_state(schedule: Any, memory: Any, count: int, rates: list[float]) -> dict[str, Any]:
    inner, steps = _unwrapped(schedule)
    last = {"_last_lr": rates}
    if is_plateau(inner):
        return {name: np.asarray(getattr(memory, name)).item() for name in _PLATEAU} | last
    if isinstance(inner, Composition):
        node = inner.node()
    elif isinstance(inner, Scheduler):
        node = Leaf(inner, None)
    else:
        raise ValueError(f"lr of tx follows {inner!r}, which is no schedule of this package.")
    node.construct({})
    fraction = count / steps if getattr(schedule, "fractional", False) else count // steps
    return _entries(node, 0, math.inf, fraction, rates)


def _entries(node: Node, start: float, stop: float, count: Any, rates: list[float]) -> dict[str, Any]:
    """What PyTorch's scheduler holds at ``count`` if it is at work from ``start`` to before ``stop``."""
    runs = start < stop and count >= start
    done = max(min(count, stop - 1) - start, 0) if runs else 0
    last = {"_last_lr": list(rates)}
    if isinstance(node, Series):
        edges = [0, *(max(0, milestone - node.epoch) for milestone in node.milestones), math.inf]
        children = [
            _entries(child, begin, min(end, stop), count, rates)
            for child, begin, end in zip(node.children, edges, edges[1:], strict=False)
        ]
        return {"last_epoch": node.epoch + math.floor(done), "_schedulers": children} | last
    if isinstance(node, Chain):
        return {"_schedulers": [_entries(child, start, stop, count, rates) for child in node.children]} | last
    assert isinstance(node, Leaf)
    epoch = (0 if runs and start else node.epoch) + done
    new: dict[str, Any] = {"last_epoch": math.floor(epoch), "_step_count": node.calls + math.floor(done)}
    new |= last
    name = node.scheduler.name
    if name in ("lambda_lr", "multiplicative_lr"):
        new["lr_lambdas"] = [None] * len(rates)
    if name == "cyclic_lr":
        new["_scale_fn_custom"] = None
    if name == "cosine_annealing_warm_restarts":
        new["T_cur"], new["T_i"] = _cycle(node.scheduler, max(epoch, 0))
    return new


def _cycle(scheduler: Any, epoch: float) -> tuple[float, int]:
    """How far warm restarts are in a cycle, and how long that is."""
    length = scheduler.T_0
    if scheduler.T_mult == 1:
        return epoch % length, length
    while epoch >= length:
        epoch, length = epoch - length, length * scheduler.T_mult
    return epoch, length


def _merged(old: dict[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    for name, value in new.items():
        if name == "_schedulers":
            old[name] = [_merged(dict(o), n) for o, n in zip(old[name], value, strict=True)]
        elif name not in ("lr_lambdas", "_scale_fn_custom") or name not in old:
            old[name] = value
    return old
