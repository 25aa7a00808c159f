"""Averages of the parameters, and batch statistics to go with them."""

from jaxopt_core.averaging.average import (
    Averaged,
    AvgFn,
    average,
    get_ema_avg_fn,
    get_swa_avg_fn,
    init_average,
)
from jaxopt_core.averaging.batch_norm import update_bn
from jaxopt_core.averaging.beside import AverageState, averaged_params, ema, keep_average, swa, swap

__all__ = [
    "AverageState",
    "Averaged",
    "AvgFn",
    "average",
    "averaged_params",
    "ema",
    "get_ema_avg_fn",
    "get_swa_avg_fn",
    "init_average",
    "keep_average",
    "swa",
    "swap",
    "update_bn",
]
