"""Who is compared.

To try an idea, add a row to ``CONTENDERS``: a name, a function that makes its :class:`Run`, and, where
it needs a setting that holds for a whole process, a function that makes it. Every contender has a process
of its own. ``torch`` and ``jax`` are imported inside the functions, because a process is set up first.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

from benchmarks.harness import Run
from benchmarks.parameter_sets import ParameterSet

__all__ = ["CONTENDERS", "DEFAULT", "OPTIMIZERS", "Contender", "as_it_is"]

OPTIMIZERS = {"sgd": "SGD, momentum 0.9", "adam": "Adam", "adamw": "AdamW", "adafactor": "Adafactor"}


def as_it_is() -> None:
    """Sets nothing up."""


def _setup_cpu() -> None:
    import jaxopt_core as jo

    # A step by itself has no temporary arrays to keep, and one heap puts some arrays where it is slower
    # (README, what was tried).
    jo.setup_cpu(keep_memory=False)


@dataclasses.dataclass(frozen=True)
class Contender:
    """One column of the comparison.

    Attributes:
      name: in the tables and on the command line.
      make: ``(optimizer, parameters) -> Run``.
      peer: one of those that ours is measured against.
      prepare: called in its process before JAX starts.
      lacks: optimizers that it does not have.
      differs: optimizer -> why its numbers are not PyTorch's; elsewhere they are compared.
    """

    name: str
    make: Callable[[str, ParameterSet], Run]
    peer: bool = False
    prepare: Callable[[], None] = as_it_is
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
        Contender("ours, setup_cpu", _ours(), prepare=_setup_cpu, differs=_OURS_DIFFERS),
        Contender(
            "ours, setup_cpu, bucketed", _ours(bucketed=True), prepare=_setup_cpu, lacks=_NOT_ELEMENTWISE
        ),
        Contender("optax, setup_cpu", _optax, prepare=_setup_cpu, differs=_OPTAX_DIFFERS),
    )
}
DEFAULT = ("torch", "torch fused", "optax", "ours", "ours, setup_cpu", "ours, setup_cpu, bucketed")
