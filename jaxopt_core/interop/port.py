"""The lines of Python that construct here what a PyTorch checkpoint was trained with."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from jaxopt_core.interop.arrays import number
from jaxopt_core.interop.kinds import FLAGS, KINDS, defaults, kind_named
from jaxopt_core.interop.patterns import telling

__all__ = ["port", "possible_kinds", "scheduler_kind"]

_LEFT_BY_SCHEDULERS = {
    "initial_lr",
    "max_lr",
    "min_lr",
    "max_momentum",
    "base_momentum",
    "swa_lr",
}
# The class of a scheduler by what its state dict holds; the first that fits.
_SCHEDULERS = {
    "SequentialLR": {"_schedulers", "_milestones"},
    "ChainedScheduler": {"_schedulers"},
    "OneCycleLR": {"total_steps", "_schedule_phases"},
    "CyclicLR": {"total_size", "step_ratio"},
    "ReduceLROnPlateau": {"patience", "cooldown", "threshold"},
    "CosineAnnealingWarmRestarts": {"T_0", "T_mult"},
    "CosineAnnealingLR": {"T_max", "eta_min"},
    "SWALR": {"anneal_epochs"},
    "StepLR": {"step_size", "gamma"},
    "MultiStepLR": {"milestones", "gamma"},
    "LinearLR": {"start_factor", "end_factor", "total_iters"},
    "ConstantLR": {"factor", "total_iters"},
    "PolynomialLR": {"power", "total_iters"},
    "MultiplicativeLR or LambdaLR": {"lr_lambdas"},
    "ExponentialLR": {"gamma"},
}
# Class -> (ours, its arguments that stand in the state dict under their own names).
_LINES: dict[str, tuple[str, tuple[str, ...]]] = {
    "CosineAnnealingWarmRestarts": ("cosine_annealing_warm_restarts", ("T_0", "T_mult", "eta_min")),
    "CosineAnnealingLR": ("cosine_annealing_lr", ("T_max", "eta_min")),
    "StepLR": ("step_lr", ("step_size", "gamma")),
    "LinearLR": ("linear_lr", ("start_factor", "end_factor", "total_iters")),
    "ConstantLR": ("constant_lr", ("factor", "total_iters")),
    "PolynomialLR": ("polynomial_lr", ("total_iters", "power")),
    "ExponentialLR": ("exponential_lr", ("gamma",)),
    "ReduceLROnPlateau": (
        "reduce_lr_on_plateau",
        ("mode", "factor", "patience", "threshold", "threshold_mode", "cooldown", "eps"),
    ),
}


def possible_kinds(state_dict: Mapping[str, Any]) -> list[str]:
    """The classes in ``torch.optim`` whose parameter groups hold what these hold.

    Args:
      state_dict: ``optimizer.state_dict()``.

    Example:
      >>> group = {"lr": 0.1, "rho": 0.9, "eps": 1e-6, "weight_decay": 0, "maximize": False, "params": [0]}
      >>> possible_kinds({"state": {}, "param_groups": [group]})
      ['Adadelta']
    """
    group = state_dict["param_groups"][0]
    flags = {flag for each in FLAGS.values() for flag in each}
    decoupled = {"decoupled_weight_decay"}  # which AdamW holds too, and does not take
    held = set(group) - flags - _LEFT_BY_SCHEDULERS - {"params", "param_names"} - decoupled
    kinds = [kind for kind in KINDS if set(defaults(kind)) - decoupled == held]
    if "decoupled_weight_decay" in group and "Adam" in kinds:
        kinds.remove("Adam" if group["decoupled_weight_decay"] else "AdamW")
    return kinds


def scheduler_kind(state_dict: Mapping[str, Any]) -> str:
    """The class of a scheduler, by what its state dict holds.

    Raises:
      ValueError: it holds what no scheduler of PyTorch's does.

    Example:
      >>> scheduler_kind({"step_size": 3, "gamma": 0.1, "last_epoch": 7})
      'StepLR'
    """
    for kind, keys in _SCHEDULERS.items():
        if keys <= state_dict.keys():
            return kind
    raise ValueError(f"No scheduler of PyTorch's holds {', '.join(sorted(map(str, state_dict)))}.")


def port(
    optimizer: Mapping[str, Any],
    kind: str | None = None,
    scheduler: Mapping[str, Any] | None = None,
    scheduler_class: str | None = None,
) -> str:
    """Writes the lines that construct the same optimizer and schedule here.

    Args:
      optimizer: ``optimizer.state_dict()``.
      kind: its class. Default: the one whose parameter groups look like these, if there is one only.
      scheduler: ``scheduler.state_dict()``.
      scheduler_class: its class. Default: by what the state dict holds.

    Returns:
      Python source. Where a checkpoint does not hold an argument (a function, say) a comment says so. With
      several parameter groups the names of their parameters stand in ``by_path``, with Flax's names of leaves
      beside PyTorch's; without names in the checkpoint their numbers, for you to replace.

    Raises:
      ValueError: the class is unknown or cannot be told.

    Example:
      >>> group = {"lr": 0.05, "momentum": 0.9, "dampening": 0, "weight_decay": 0, "nesterov": False}
      >>> group |= {"maximize": False, "foreach": None, "initial_lr": 0.1, "params": [0, 1]}
      >>> step_lr = {"step_size": 30, "gamma": 0.5, "base_lrs": [0.1], "last_epoch": 31}
      >>> print(port({"state": {}, "param_groups": [group]}, "SGD", step_lr))
      import jaxopt_core as jo
      from jaxopt_core import schedulers
      <BLANKLINE>
      schedule = schedulers.step_lr(0.1, step_size=30, gamma=0.5)  # 31 steps made
      tx = jo.sgd(lr=schedule, momentum=0.9)
    """
    kind = _kind(optimizer, kind)
    groups = optimizer["param_groups"]
    lines = ["import jaxopt_core as jo"]
    arguments = {
        name: _grouped([(group, number(group[name])) for group in groups])
        for name in defaults(kind)
        if all(name in group for group in groups)
    }
    usual = {name: repr(value) for name, value in defaults(kind).items()}
    if scheduler is not None:
        lines.append("from jaxopt_core import schedulers")
        scheduler_class = scheduler_class or scheduler_kind(scheduler)
        bases = [number(group.get("initial_lr", group["lr"])) for group in groups]
        schedules = [
            _schedule(scheduler_class, scheduler, groups[i], i, base) for i, base in enumerate(bases)
        ]
        names = ["schedule"] if len(set(schedules)) == 1 else [f"schedule{i}" for i in range(len(groups))]
        lines.append("")
        lines += [f"{name} = {text}" for name, text in zip(names, schedules, strict=False)]
        per_group = [(group, _Source(names[i % len(names)])) for i, group in enumerate(groups)]
        cycles = scheduler_class in ("OneCycleLR", "CyclicLR")
        suffix = ".lr" if cycles else ""
        arguments["lr"] = _grouped([(group, _Source(f"{name}{suffix}")) for group, name in per_group])
        if cycles and scheduler.get("cycle_momentum"):
            if scheduler.get("use_beta1"):
                arguments["betas"] = _grouped(
                    [(g, _Source(f"({name}.momentum, {number(g['betas'])[1]!r})")) for g, name in per_group]
                )
            else:
                arguments["momentum"] = _grouped([(g, _Source(f"{name}.momentum")) for g, name in per_group])
    else:
        lines.append("")
    written = [
        f"{name}={text}" for name, text in arguments.items() if name == "lr" or text != usual.get(name)
    ]
    lines.append(f"tx = jo.{KINDS[kind].__name__}({', '.join(written)})")
    return "\n".join(lines)


class _Source(str):
    """Python source, written as it is."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def _kind(optimizer: Mapping[str, Any], kind: str | None) -> str:
    if kind is not None:
        return kind_named(kind)
    kinds = possible_kinds(optimizer)
    if len(kinds) != 1:
        held = ", ".join(sorted(optimizer["param_groups"][0]))
        raise ValueError(
            f"The checkpoint does not say which optimizer it is of: {' or '.join(kinds) or 'none'} by what "
            f"its parameter groups hold ({held}). Give its class, such as --optimizer AdamW."
        )
    return kinds[0]


def _grouped(values: Sequence[tuple[Mapping[str, Any], Any]]) -> str:
    """One value, or a ``by_path`` whose default is that of the most parameters."""
    by_value: dict[str, list[str]] = {}
    for group, value in values:
        by_value.setdefault(repr(value), []).extend(_names(group))
    if len(by_value) == 1:
        return next(iter(by_value))
    default = max(by_value, key=lambda value: len(by_value[value]))
    every = [name for names in by_value.values() for name in names]
    patterns = ", ".join(
        f"{_pattern(names, [name for name in every if name not in set(names)])!r}: {value}"
        for value, names in by_value.items()
        if value != default
    )
    return f"jo.by_path({{{patterns}}}, default={default})"


def _names(group: Mapping[str, Any]) -> list[str]:
    names = group.get("param_names") or [f"<parameter {number}>" for number in group["params"]]
    return [name.replace(".", "/") for name in names]


def _pattern(names: Sequence[str], others: Sequence[str]) -> str:
    # What PyTorch calls weight has other names in Flax.
    return re.sub(r"\bweight\b", "(weight|kernel|scale|embedding)", telling(names, others))


def _schedule(kind: str, state: Mapping[str, Any], group: Mapping[str, Any], index: int, base: float) -> str:
    done = f"  # {state['last_epoch']} steps made" if "last_epoch" in state else ""
    if kind in _LINES:
        ours, names = _LINES[kind]
        given = [f"{name}={state[name]!r}" for name in names if name in state]
        if kind == "ReduceLROnPlateau":
            given.append(f"min_lr={state['min_lrs'][index]!r}")
        return f"schedulers.{ours}({', '.join([repr(base), *given])}){done}"
    if kind == "MultiStepLR":
        milestones = sorted(m for m, times in state["milestones"].items() for _ in range(times))
        return f"schedulers.multi_step_lr({base!r}, {milestones!r}, gamma={state['gamma']!r}){done}"
    if kind == "SWALR":
        strategy = state.get("_anneal_strategy", "cos")
        return (
            f"schedulers.swa_lr({base!r}, {group['swa_lr']!r}, anneal_epochs={state['anneal_epochs']!r}, "
            f"anneal_strategy={strategy!r}){done}"
        )
    if kind == "OneCycleLR":
        return _one_cycle(state, group, done)
    if kind == "CyclicLR":
        return _cyclic(state, index, done)
    if kind in ("SequentialLR", "ChainedScheduler"):
        children = [
            _schedule(scheduler_kind(child), child, group, index, base).partition("  #")[0]
            for child in state["_schedulers"]
        ]
        listed = f"[{', '.join(children)}]"
        if kind == "ChainedScheduler":
            return f"schedulers.chained_scheduler({listed})"
        return f"schedulers.sequential_lr({listed}, {list(state['_milestones'])!r}){done}"
    if kind in ("LambdaLR", "MultiplicativeLR", "MultiplicativeLR or LambdaLR"):
        ours = "multiplicative_lr" if kind == "MultiplicativeLR" else "lambda_lr"
        return f"schedulers.{ours}({base!r}, ...)  # a checkpoint does not hold the function: write it here"
    raise ValueError(f"scheduler {kind!r} is none of PyTorch's: {', '.join(_SCHEDULERS)}.")


def _one_cycle(state: Mapping[str, Any], group: Mapping[str, Any], done: str) -> str:
    phases = state["_schedule_phases"]
    total, low, high = state["total_steps"], group["initial_lr"], group["max_lr"]
    given = {
        "pct_start": (phases[0]["end_step"] + 1) / total,
        "anneal_strategy": state["_anneal_func_type"],
        "cycle_momentum": state["cycle_momentum"],
        "div_factor": high / low,
        "final_div_factor": low / group["min_lr"],
        "three_phase": len(phases) == 3,
    }
    if state["cycle_momentum"]:
        given |= {"base_momentum": group["base_momentum"], "max_momentum": group["max_momentum"]}
    usual = {"pct_start": 0.3, "anneal_strategy": "cos", "cycle_momentum": True, "div_factor": 25.0}
    usual |= {"final_div_factor": 1e4, "three_phase": False, "base_momentum": 0.85, "max_momentum": 0.95}
    # A quotient of what was divided is the number itself up to rounding.
    clean = {name: float(f"{value:.12g}") if type(value) is float else value for name, value in given.items()}
    written = "".join(f", {name}={value!r}" for name, value in clean.items() if value != usual[name])
    return f"schedulers.one_cycle_lr({high!r}, total_steps={total}{written}){done}"


def _cyclic(state: Mapping[str, Any], index: int, done: str) -> str:
    up = state["total_size"] * state["step_ratio"]
    given = {
        "step_size_up": int(up),
        "step_size_down": int(state["total_size"] - up),
        "mode": state["mode"],
        "gamma": state["gamma"],
        "scale_mode": state["scale_mode"],
        "cycle_momentum": state["cycle_momentum"],
    }
    if state["cycle_momentum"]:
        given |= {
            "base_momentum": state["base_momentums"][index],
            "max_momentum": state["max_momentums"][index],
        }
    written = ", ".join(f"{name}={value!r}" for name, value in given.items())
    base, high = state["base_lrs"][index], state["max_lrs"][index]
    return f"schedulers.cyclic_lr({base!r}, {high!r}, {written}){done}"
