"""Finding what makes a training loop slow: recordings, tables, pictures and advice."""

from jaxopt_core.profiling.advice import Advice, advise
from jaxopt_core.profiling.buffers import Buffer
from jaxopt_core.profiling.callback import ProfileCallback
from jaxopt_core.profiling.cost import Cost
from jaxopt_core.profiling.export import export_perfetto, export_tensorboard
from jaxopt_core.profiling.flame import plot_flame
from jaxopt_core.profiling.recorder import Compilation, Recorder, profile
from jaxopt_core.profiling.report import Profile, Row
from jaxopt_core.profiling.schedule import Schedule

__all__ = [
    "Advice",
    "Buffer",
    "Compilation",
    "Cost",
    "Profile",
    "ProfileCallback",
    "Recorder",
    "Row",
    "Schedule",
    "advise",
    "export_perfetto",
    "export_tensorboard",
    "plot_flame",
    "profile",
]
