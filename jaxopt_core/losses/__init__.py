"""PyTorch's loss functions, with its arguments, reductions, numbers and gradients.

All take ``(input, target)`` in PyTorch's order and ``reduction="mean"``, ``"sum"`` or ``"none"``. The one
difference in convention is where the classes are: :func:`cross_entropy` and :func:`nll_loss` expect them on
the last axis, as JAX and Flax lay out their logits; ``axis=1`` is PyTorch's convention. For ``(N, C)`` and
``(C,)`` the two are the same.

``size_average`` and ``reduce``, which PyTorch has deprecated since 2018, do not exist here.
"""

from jaxopt_core.losses.binary import bce_with_logits, binary_cross_entropy_with_logits
from jaxopt_core.losses.classes import cross_entropy, nll_loss
from jaxopt_core.losses.ctc import ctc_loss
from jaxopt_core.losses.divergence import kl_div
from jaxopt_core.losses.regression import huber_loss, l1_loss, mse_loss, smooth_l1_loss

__all__ = [
    "bce_with_logits",
    "binary_cross_entropy_with_logits",
    "cross_entropy",
    "ctc_loss",
    "huber_loss",
    "kl_div",
    "l1_loss",
    "mse_loss",
    "nll_loss",
    "smooth_l1_loss",
]
