"""What happens to gradients between the backward pass and the optimizer.

Chain these in the order in which PyTorch's users call them: unscale, clip, regularize, optimizer, with
:func:`accumulate` around them.
"""

from jaxopt_core.gradients.accumulate import Accumulate, AccumulateState, accumulate
from jaxopt_core.gradients.clip import (
    ClipNormState,
    ClippedByNorm,
    ClipValueState,
    clip_grad_norm,
    clip_grad_value,
    clipped_by_norm,
    clipped_by_value,
    read_norm,
)
from jaxopt_core.gradients.noise import GradientNoiseState, gradient_noise
from jaxopt_core.gradients.nonfinite import SkipNonfiniteState, all_finite, skip_nonfinite
from jaxopt_core.gradients.norm import global_norm
from jaxopt_core.gradients.regularize import RegularizationState, l1_regularization, l2_regularization

__all__ = [
    "Accumulate",
    "AccumulateState",
    "ClipNormState",
    "ClipValueState",
    "ClippedByNorm",
    "GradientNoiseState",
    "RegularizationState",
    "SkipNonfiniteState",
    "accumulate",
    "all_finite",
    "clip_grad_norm",
    "clip_grad_value",
    "clipped_by_norm",
    "clipped_by_value",
    "global_norm",
    "gradient_noise",
    "l1_regularization",
    "l2_regularization",
    "read_norm",
    "skip_nonfinite",
]
