"""Mixed precision: which arithmetic runs in which floating-point type."""

from jaxopt_core.precision.autocast import autocast, no_autocast
from jaxopt_core.precision.policy import Policy, get_policy
from jaxopt_core.precision.report import Operation, Report, autocast_report

__all__ = [
    "Operation",
    "Policy",
    "Report",
    "autocast",
    "autocast_report",
    "get_policy",
    "no_autocast",
]
