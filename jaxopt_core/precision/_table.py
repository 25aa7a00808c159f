"""Which primitive runs in which precision under ``autocast``: PyTorch's CUDA list in JAX's names.

PyTorch keeps two lists. This is the CUDA one, the one that networks are trained with. Where
``torch.autocast("cpu")`` differs: there exponentials, logarithms, powers, sums, softmax and layer norm
follow their input, and losses, ``prod``, ``linalg`` and ``fft`` run in float32; here the first group runs in
float32, losses do because they are made of it, and ``linalg`` and ``fft`` run as they were traced.

Primitives are smaller than PyTorch's operations, and one thing follows: ``batch_norm`` returns the type of
its input in PyTorch, with float32 inside. Here it is a mean, a difference and a product with parameters, so
what it returns is float32, as layer norm's result is in PyTorch.
"""

from __future__ import annotations

from typing import Any

from jax import lax

__all__ = [
    "ALIKE",
    "ARITHMETIC",
    "BROADCASTING",
    "COMPARE",
    "FLOAT32",
    "FOLLOW",
    "MOVE",
    "PRODUCTS",
    "PROMOTABLE",
    "SUMMED_BACKWARDS",
    "WIDEST",
    "has_explicit_precision",
    "has_free_dimension",
]


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


PRODUCTS = _names("dot_general conv_general_dilated ragged_dot_general")
"""Run in the low type: what an accelerator's matrix unit computes."""

FLOAT32 = _names("""
    exp exp2 expm1 log log1p pow rsqrt reduce_sum reduce_prod cumsum cumprod cumlogsumexp reduce_window_sum
    scatter scatter-add scatter-sub scatter-mul scatter-max scatter-min select_and_scatter_add add_any
    psum psum_invariant reduce_scatter erf_inv lgamma digamma polygamma igamma igammac
    acos asin sinh cosh tan
""")
"""Run in float32: a rounding to eight bits in them is amplified, or accumulates.

``add_any`` adds the gradients of a value that is used twice; it appears when a gradient is autocast, not
when the gradient of an autocast function is taken."""

ARITHMETIC = _names("add sub mul div rem atan2")
COMPARE = _names("eq ne lt le gt ge lt_to le_to eq_to")
WIDEST = ARITHMETIC | _names("""
    max min select_n concatenate stack clamp pad dynamic_update_slice integer_pow square
""")
"""Run in the widest type of their inputs."""

MOVE = _names("""
    reshape broadcast_in_dim transpose squeeze slice dynamic_slice gather rev tile split unstack sort copy
    stop_gradient name optimization_barrier sharding_constraint layout_constraint reshard device_put
    pvary all_gather all_gather_invariant all_to_all ppermute pbroadcast
""")
"""Move data and compute nothing: each output follows its input."""

FOLLOW = MOVE | _names("""
    neg abs sign floor ceil round is_finite tanh logistic sqrt sin cos erf erfc cbrt atan asinh acosh atanh
    reduce_max reduce_min cummax cummin argmax argmin top_k approx_top_k reduce_window_max reduce_window_min
    pmax pmin
""")
"""Run in the type of their input."""

BROADCASTING = _names("add sub mul div rem atan2 max min")
"""Operators whose operands may be smaller than their result."""

ALIKE = _names("select_n concatenate stack dynamic_update_slice")
"""Of ``WIDEST``, those that take no operand in fewer dimensions, so that no gradient is a sum."""

SUMMED_BACKWARDS = _names("gather reduce_max reduce_min pvary tile")
"""Exact in any type, with a gradient that is a sum; so is a broadcast's."""

PROMOTABLE = _names("""
    sub mul div square integer_pow neg abs max min select_n
    reshape broadcast_in_dim transpose squeeze stop_gradient
""")
"""Run in float32 when everything that reads their result does. This is what makes softmax and the norms
float32 as a whole: ``exp(x - max(x))`` with the difference rounded would have lost what ``exp`` gains."""


def has_explicit_precision(precision: object) -> bool:
    """Whether a product's ``precision`` argument asks for more than the default."""
    if isinstance(precision, tuple):
        return any(has_explicit_precision(one) for one in precision)
    return precision not in (None, lax.Precision.DEFAULT)


def has_free_dimension(dimension_numbers: Any, left: int, right: int) -> bool:
    """Whether ``dot_general`` is a product with matrices, and not just a sum of products.

    Args:
      dimension_numbers: what it contracts.
      left: how many dimensions the left operand has.
      right: how many the right one has.
    """
    (contracted, _), (batch, _) = dimension_numbers
    return max(left, right) > len(contracted) + len(batch)
