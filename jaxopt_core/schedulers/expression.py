"""Schedules from text, for the command line: calls, numbers, strings, lists; nothing is executed."""

from __future__ import annotations

import ast
import operator
from typing import Any

from jaxopt_core import schedulers

__all__ = ["parse"]

_OTHER = {
    "Cycle",
    "PlateauState",
    "evaluate",
    "plot",
    "scale_by_learning_rate",
    "scale_by_schedule",
    "step_schedules",
}
_NOT_FROM_TEXT = {
    "lambda_lr": "a function",
    "multiplicative_lr": "a function",
    "reduce_lr_on_plateau": "a metric",
}
_ARITHMETIC: dict[type[ast.operator], Any] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def parse(text: str) -> Any:
    """The schedule that a Python expression stands for.

    Args:
      text: a call of one of the schedulers, such as
        ``"sequential_lr([warmup(0.1, 5), step_lr(0.1, 30)], [5])"``.

    Returns:
      The schedule.

    Raises:
      ValueError: the text is no such expression, or the arguments are wrong; one line.

    Example:
      >>> from jaxopt_core.schedulers.expression import parse
      >>> parse("step_lr(1/2, step_size=30)")
      step_lr(lr=0.5, step_size=30, gamma=0.1)
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, RecursionError, MemoryError):
        raise ValueError("expected a call such as step_lr(0.1, 30)") from None
    if not isinstance(tree, ast.Call):
        raise ValueError("expected a call such as step_lr(0.1, 30)")
    return _value(tree)


def _value(node: ast.AST) -> Any:
    match node:
        case ast.Constant(value=int() | float() | str() | None):
            return node.value
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_number(operand)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
            try:
                return _ARITHMETIC[type(op)](_number(left), _number(right))
            except (ArithmeticError, MemoryError) as error:
                raise ValueError(f"{ast.unparse(node)}: {error}") from None
        case ast.List(elts=elements) | ast.Tuple(elts=elements):
            return [_value(each) for each in elements]
        case ast.Call(func=ast.Name(id=name)):
            return _called(name, node)
    raise ValueError(f"expected numbers, strings, lists and schedulers, found {ast.unparse(node)}")


def _number(node: ast.AST) -> Any:
    value = _value(node)
    if not isinstance(value, int | float):
        raise ValueError(f"expected a number, found {ast.unparse(node)}")
    return value


def _called(name: str, node: ast.Call) -> Any:
    if name in _NOT_FROM_TEXT:
        raise ValueError(f"{name} needs {_NOT_FROM_TEXT[name]}: draw it in Python, with schedulers.plot")
    known = sorted(set(schedulers.__all__) - _OTHER - set(_NOT_FROM_TEXT))
    if name not in known:
        raise ValueError(f"there is no scheduler {name}; there are {', '.join(known)}")
    if any(isinstance(each, ast.Starred) for each in node.args) or any(k.arg is None for k in node.keywords):
        raise ValueError(f"expected plain arguments, found {ast.unparse(node)}")
    positional = [_value(each) for each in node.args]
    named = {str(keyword.arg): _value(keyword.value) for keyword in node.keywords}
    try:
        return getattr(schedulers, name)(*positional, **named)
    except (TypeError, ValueError, ArithmeticError, NotImplementedError) as error:
        reason = str(error).splitlines()[0].removeprefix(f"{name}() ")
        raise ValueError(f"{name}: {reason}") from None
