"""Mixed precision: which arithmetic runs in which floating-point type."""

from jaxopt_core.precision.autocast import autocast, no_autocast
from jaxopt_core.precision.loss_scale import (
    LossScale,
    LossScaled,
    LossScaledState,
    LossScaleState,
    Unscaled,
    dynamic_loss_scale,
    static_loss_scale,
    with_loss_scale,
)
from jaxopt_core.precision.policy import Policy, get_policy
from jaxopt_core.precision.report import Operation, Report, autocast_report

__all__ = [
    "LossScale",
    "LossScaleState",
    "LossScaled",
    "LossScaledState",
    "Operation",
    "Policy",
    "Report",
    "Unscaled",
    "autocast",
    "autocast_report",
    "dynamic_loss_scale",
    "get_policy",
    "no_autocast",
    "static_loss_scale",
    "with_loss_scale",
]
