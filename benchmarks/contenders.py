"""Who is compared, and in which process each of them runs.

To try an idea, add a row to ``CONTENDERS``: a name, a function that makes its :class:`Run`, and, where
it needs a setting that holds for a whole process, the name of a row in ``PROCESSES``. Rows that share a
process share its gradients too. ``torch`` and ``jax`` are imported inside the functions, because a
process is set up first.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

from benchmarks.harness import Run
from benchmarks.parameter_sets import ParameterSet

__all__ = ["CONTENDERS", "DEFAULT", "OPTIMIZERS", "PROCESSES", "Contender"]

OPTIMIZERS = {"sgd": "SGD, momentum 0.9", "adam": "Adam", "adamw": "AdamW", "adafactor": "Adafactor"}


@dataclasses.dataclass(frozen=True)
class Contender:
    """One column of the comparison.

    Attributes:
      name: in the tables and on the command line.
      make: ``(optimizer, parameters) -> Run``.
      peer: one of those that ours is measured against.
      process: the row of ``PROCESSES`` that it runs in.
      lacks: optimizers that it does not have.
      differs: optimizer -> why its numbers are not PyTorch's; elsewhere they are compared.
    """

    name: str
    make: Callable[[str, ParameterSet], Run]
    peer: bool = False
    process: str = "plain"
    lacks: frozenset[str] = frozenset()
    differs: Mapping[str, str] = dataclasses.field(default_factory=dict)


def _torch(**arguments: bool) -> Callable[[str, ParameterSet], Run]:
    def make(optimizer: str, parameters: ParameterSet) -> Run:
        from benchmarks.with_torch import TorchRun

        return TorchRun(optimizer, parameters, **arguments)

    return make


def _optax(optimizer: str, parameters: ParameterSet) -> Run:
    import optax

    from benchmarks.with_jax import JaxRun, optax_recipe

    return JaxRun(optax_recipe(optimizer), optax.apply_updates, parameters)


def _ours(bucketed: bool = False) -> Callable[[str, ParameterSet], Run]:
    def make(optimizer: str, parameters: ParameterSet) -> Run:
        import jaxopt_core as jo
        from benchmarks.with_jax import JaxRun, our_recipe

        tx = our_recipe(optimizer, parameters)
        return JaxRun(jo.bucketed(tx) if bucketed else tx, jo.apply_updates, parameters)

    return make


def _as_it_is() -> None:
    pass


def _setup_cpu() -> None:
    import jaxopt_core as jo

    # A step by itself has no temporary arrays to keep, and one heap puts some arrays where it is slower
    # (README, what was tried).
    jo.setup_cpu(keep_memory=False)


# Name -> what is done in a new process before JAX starts.
PROCESSES: dict[str, Callable[[], None]] = {"plain": _as_it_is, "setup_cpu": _setup_cpu}

_OPTAX_DIFFERS = {
    "adafactor": "optax.adafactor factors the two largest axes of an array, PyTorch the last two, which for "
    "a convolution are the window's: less state, and other numbers. Its step size and its bounds are set "
    "to PyTorch's, as far as it has them."
}

_OURS_DIFFERS = {
    "adafactor": "torch.norm of 67M float32 numbers is 0.5 % off on a CPU, and PyTorch's Adafactor with it; "
    "tests/equivalence compares the numbers."
}
_NOT_ELEMENTWISE = frozenset({"adafactor"})

CONTENDERS = {
    contender.name: contender
    for contender in (
        Contender("torch", _torch(), peer=True),
        Contender("torch fused", _torch(fused=True), peer=True, lacks=frozenset({"adafactor"})),
        Contender("torch foreach", _torch(foreach=True), peer=True),
        Contender("optax", _optax, peer=True, differs=_OPTAX_DIFFERS),
        Contender("ours", _ours(), differs=_OURS_DIFFERS),
        Contender("ours, bucketed", _ours(bucketed=True), lacks=_NOT_ELEMENTWISE),
        Contender("ours, setup_cpu", _ours(), process="setup_cpu", differs=_OURS_DIFFERS),
        Contender(
            "ours, setup_cpu, bucketed", _ours(bucketed=True), process="setup_cpu", lacks=_NOT_ELEMENTWISE
        ),
        Contender("optax, setup_cpu", _optax, process="setup_cpu", differs=_OPTAX_DIFFERS),
    )
}
DEFAULT = ("torch", "torch fused", "optax", "ours", "ours, setup_cpu", "ours, setup_cpu, bucketed")
