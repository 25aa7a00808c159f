"""What is refused, in PyTorch's words where it has them: arguments, parameters and gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.experimental import sparse

from jaxopt_core.groups import ByPath
from jaxopt_core.rule import Rule
from jaxopt_core.tree import Leaves, Slots, is_absent

__all__ = [
    "check_gradients",
    "check_parameter",
    "check_slots",
    "element",
    "fixed_numbers",
    "is_count",
    "require",
    "require_betas",
    "require_non_negative",
]


def fixed_numbers(value: Any) -> Iterator[Any]:
    """The fixed numbers in a hyperparameter; arrays and schedules cannot be checked beforehand."""
    if isinstance(value, ByPath):
        for each in value.choices().values():
            yield from fixed_numbers(each)
    elif isinstance(value, int | float | np.floating | np.integer):
        yield value


def element(value: Any, index: int) -> Any:
    """Element ``index`` of a tuple hyperparameter, seen through :func:`by_path`."""
    return value.map(lambda each: element(each, index)) if isinstance(value, ByPath) else value[index]


def require(value: Any, test: Callable[[Any], bool], message: str) -> None:
    """Raises ``ValueError(message)``, with ``{}`` replaced by the number that fails ``test``."""
    for number in fixed_numbers(value):
        if not test(number):
            raise ValueError(message.format(number))


def require_non_negative(value: Any, message: str) -> None:
    """:func:`require` of numbers of at least 0; NaN is none."""
    require(value, lambda number: number >= 0.0, message)


def is_count(value: Any) -> bool:
    """Whether a value is an integer of at least 0."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def require_betas(betas: Any) -> None:
    """:func:`require` of both decay rates, in the words that all of PyTorch's Adams share."""
    for i in range(2):
        message = f"Invalid beta parameter at index {i}: {{}}"
        require(element(betas, i), lambda beta: 0.0 <= beta < 1.0, message)


def check_parameter(rule: Rule, path: str, leaf: Any) -> None:
    """Raises if the rule cannot optimize a parameter."""
    if not isinstance(leaf, sparse.BCOO) and jnp.issubdtype(leaf.dtype, jnp.inexact):
        if rule.complex or not jnp.issubdtype(leaf.dtype, jnp.complexfloating):
            return
        raise ValueError(f"{rule.name} does not support complex parameters: {path!r} is {leaf.dtype}.")
    raise TypeError(
        f"Parameter {path!r} is {leaf.dtype}; only dense floating-point and complex arrays can be optimized. "
        f"Leave it out with optax.masked or optax.partition, or put None in its place."
    )


def check_gradients(rule: Rule, leaves: Leaves, gradients: Sequence[Any]) -> list[str]:
    """The paths of the parameters that have no gradient; raises if one has a wrong one."""
    skipped = []
    for path, param, grad in zip(leaves.paths, leaves.values, gradients, strict=True):
        if is_absent(param):
            continue
        if is_absent(grad):
            skipped.append(path)
            continue
        _check_sparsity(rule, path, grad)
        if grad.shape != param.shape:
            raise ValueError(f"Gradient of {path!r}: expected shape {param.shape}, got {grad.shape}.")
        if grad.dtype != param.dtype:
            raise TypeError(
                f"Gradient of {path!r}: expected {param.dtype}, as the parameter is; got {grad.dtype}. "
                f"Cast the gradient first."
            )
    return skipped


def check_slots(path: str, slots: Slots, expected: Slots) -> None:
    """Raises if the slots of a parameter are not what its rule would make for it."""
    remedy = "Call tx.init(params) again, or restore the state that belongs to these parameters."
    if slots.keys() != expected.keys():
        raise ValueError(
            f"The optimizer's state was made by another optimizer or for other parameters: {path!r} should "
            f"have the slots {sorted(expected)}, and has {sorted(slots)}. {remedy}"
        )
    for name, want in expected.items():
        if (slots[name].shape, slots[name].dtype) != (want.shape, want.dtype):
            raise ValueError(
                f"The optimizer's state was made for other parameters: slot {name!r} of {path!r}: expected "
                f"{want.dtype} of shape {want.shape}, got {slots[name].dtype} of shape {slots[name].shape}. "
                f"{remedy}"
            )


def _check_sparsity(rule: Rule, path: str, grad: Any) -> None:
    if isinstance(grad, sparse.BCOO) and not rule.sparse:
        advice = ", please consider SparseAdam instead" if rule.name in ("Adam", "AdamW") else ""
        raise TypeError(f"{rule.name} does not support sparse gradients{advice}: {path!r} has one.")
    if not isinstance(grad, sparse.BCOO) and rule.sparse:
        raise TypeError(
            f"{rule.name} does not support dense gradients, please consider Adam instead: the gradient of "
            f"{path!r} is a dense array; expected a BCOO of rows, as jaxopt_core.sparse_rows makes."
        )
    if rule.sparse and (grad.n_sparse != 1 or grad.n_batch != 0):
        raise ValueError(
            f"Gradient of {path!r}: expected a BCOO with one sparse dimension (rows) and no batch "
            f"dimension; got n_sparse={grad.n_sparse}, n_batch={grad.n_batch}."
        )
