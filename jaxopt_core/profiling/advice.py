"""Causes of a slow loop: each with its evidence, what it costs, and what to change."""

from __future__ import annotations

import collections
import statistics
from collections.abc import Callable, Iterator
from typing import NamedTuple

from jaxopt_core.profiling.hlo import Program
from jaxopt_core.profiling.machine import bfloat16_gain, peak_bandwidth, peak_flops
from jaxopt_core.profiling.report import Profile

__all__ = ["Advice", "advise"]

# Below these a cause is not worth a line.
INPUT_SHARE = 0.2
IDLE_SHARE = 0.5
SYNCS_PER_STEP = 0.9
PADDED_SHARE = 0.15
DONATED_BYTES = 1 << 20
WAITED_SHARE = 0.05
TINY_S, TINY_COUNT, TINY_SHARE = 5e-6, 100, 0.5
PRODUCT_SHARE, BFLOAT16_GAIN = 0.3, 1.3
ROOF_SHARE, MEMORY_SHARE = 0.4, 0.5
PEAK_SHARE, PROGRAM_SHARE = 0.7, 0.5

_DTYPES = {"bf16": "bfloat16", "f16": "float16"}  # XLA's name -> NumPy's


class Advice(NamedTuple):
    """A cause.

    Attributes:
      cause: its name: ``"input-bound"``, ``"recompiling"``, ``"host-bound"``, ``"synchronising"``,
        ``"float32"``, ``"memory-bound"``, ``"compute-bound"``, ``"donation"``, ``"tiny kernels"`` or
        ``"padding"``.
      evidence: what was measured.
      gain: an estimate of what a change would save.
      change: what to do.
    """

    cause: str
    evidence: str
    gain: str
    change: str

    def __str__(self) -> str:
        return f"{self.cause}: {self.evidence}\n  gain: {self.gain}\n  change: {self.change}"


def advise(profile: Profile) -> list[Advice]:
    """The causes that a recording shows, the most certain first; an empty list for a loop that has none.

    The thresholds are at the top of this module. What rests on XLA's count of bytes is a hint: data that
    stays in a cache is counted too.
    """
    rules: list[Callable[[Profile], Iterator[Advice]]] = [
        _input_bound,
        _recompiling,
        _synchronising,
        _host_bound,
        _tiny_kernels,
        _padding,
        _donation,
        _float32,
        _memory_bound,
        _compute_bound,
    ]
    return [advice for rule in rules for advice in rule(profile)]


def _compile_seconds(profile: Profile) -> float:
    return sum(c.seconds for c in profile.compilations if c.step in profile.recorded)


def _input_bound(profile: Profile) -> Iterator[Advice]:
    # What is loaded while the device computes costs nothing.
    share = min(profile.waiting, profile.wall - profile.trace.busy_seconds()) / profile.wall
    if share > INPUT_SHARE:
        per_step = 1e3 * profile.waiting / profile.steps
        yield Advice(
            "input-bound",
            f"the loop waited for its next batch {per_step:.2f} ms a step, and in {share:.0%} of the time "
            "nothing ran",
            f"up to {share:.0%} of the time",
            "load ahead with jaxopt_core.data.prefetch, or keep the data on the device as arrays",
        )


def _recompiling(profile: Profile) -> Iterator[Advice]:
    later = [c for c in profile.compilations if c.step > 0]
    for name, count in collections.Counter(c.name for c in later).items():
        of_name = [c for c in profile.compilations if c.name == name]
        # Once is the first use, in the second step perhaps; a new shape or dtype is a second one.
        if len(of_name) < 2 or not any(event.step > 0 for event in of_name):
            continue
        function = name.removeprefix("jit(").removesuffix(")")
        if function in _HELPERS:
            continue
        seconds = sum(c.seconds for c in later if c.name == name)
        reasons = dict.fromkeys(profile.explanations.get(function, []))
        why = "; ".join(list(reasons)[:3]) or "JAX does not say why"
        yield Advice(
            "recompiling",
            f"{name} was compiled {len(of_name)} times, {count} of them after the first step; {why}",
            f"{seconds:.2f} s of what was watched",
            "keep shapes and dtypes constant: pad or drop the last batch; give numbers one dtype",
        )


_HELPERS = (
    "convert_element_type",
    "broadcast_in_dim",
    "_threefry_split",
    "dynamic_slice",
    "copy",
    "_multi_slice",
)


def _synchronising(profile: Profile) -> Iterator[Advice]:
    waits = len(profile.trace.host_waits)
    waited = sum(seconds for _, seconds in profile.trace.host_waits)
    if waits / profile.steps >= SYNCS_PER_STEP and waited > WAITED_SHARE * profile.wall:
        yield Advice(
            "synchronising",
            f"Python waited for results {waits / profile.steps:.1f} times a step, {1e3 * waited:.1f} ms",
            f"up to {min(1.0, waited / profile.wall):.0%} of the time, if there is work for Python meanwhile",
            "collect results, and call float(), print or NumPy on them every hundred steps, not in every one",
        )


def _host_bound(profile: Profile) -> Iterator[Advice]:
    spent = profile.wall - profile.waiting - _compile_seconds(profile)
    busy = profile.trace.busy_seconds()
    if spent <= 0 or profile.waiting / profile.wall > INPUT_SHARE:
        return
    idle = 1 - busy / spent
    if idle > IDLE_SHARE:
        yield Advice(
            "host-bound",
            f"the device computed in {1 - idle:.0%} of the time, {1e3 * busy / profile.steps:.3f} of "
            f"{1e3 * spent / profile.steps:.3f} ms a step; the rest is Python and dispatch",
            f"up to {idle:.0%} of the time",
            "make several steps in one call: jax.lax.scan over batches, or fit(..., steps_per_dispatch=32)",
        )


def _tiny_kernels(profile: Profile) -> Iterator[Advice]:
    seconds = [duration for _, duration, _ in profile.operations()]
    tiny = [duration for duration in seconds if duration < TINY_S]
    share = sum(tiny) / sum(seconds) if tiny else 0.0
    if share > TINY_SHARE and len(tiny) / profile.steps > TINY_COUNT:
        yield Advice(
            "tiny kernels",
            f"{len(tiny) / profile.steps:.0f} of {len(seconds) / profile.steps:.0f} operations a step take "
            f"less than {1e6 * TINY_S:.0f} us each, {1e6 * statistics.median(tiny):.1f} us in the median",
            f"part of {share:.0%} of the operations' time, and of what lies between them",
            "join small arrays: jo.bucketed(optimizer) for many small parameters, stacked layers under scan",
        )


def _padding(profile: Profile) -> Iterator[Advice]:
    if profile.padded > PADDED_SHARE:
        yield Advice(
            "padding",
            f"{profile.padded:.0%} of the examples only fill up batches",
            f"up to {profile.padded:.0%} of the time",
            "choose a batch size that divides the data, or sort sequences by length into batches",
        )


def _donation(profile: Profile) -> Iterator[Advice]:
    for program in profile.ran():
        missed = _undonated(program)
        if missed > DONATED_BYTES:
            yield Advice(
                "donation",
                f"{program.name} returns {missed / 2**20:.1f} MiB in the shapes of arguments, and may not "
                "write over them",
                f"{missed / 2**20:.1f} MiB of memory, and the time to write to new pages",
                "jax.jit(step, donate_argnums=0) for the state, if the old one is not used again; in fit, "
                "check_finite=()",
            )


def _undonated(program: Program) -> int:
    """Bytes of results that have the shape of an argument, while neither is written over the other."""
    free = [each for each in program.buffers if not each.reused]
    arguments = collections.Counter(each.array for each in free if each.role == "argument")
    results = collections.Counter(each.array for each in free if each.role == "result")
    return sum(array.bytes * n for array, n in (arguments & results).items())


def _float32(profile: Profile) -> Iterator[Advice]:
    total: dict[tuple[int, int, int], float] = {}
    for operation, seconds, _ in profile.operations():
        if operation.product and operation.product.dtype == "f32":
            dims = operation.product.dims
            total[dims] = total.get(dims, 0.0) + seconds
    seconds, whole = sum(total.values()), sum(seconds for _, seconds, _ in profile.operations())
    if not total or seconds < PRODUCT_SHARE * whole:
        return
    dims = max(total, key=lambda key: total[key])
    gain = bfloat16_gain(*dims)
    if gain > BFLOAT16_GAIN:
        yield Advice(
            "float32",
            f"float32 matrix products take {seconds / whole:.0%} of the operations' time; the longest, "
            f"{dims[0]}x{dims[1]} by {dims[1]}x{dims[2]}, is {gain:.1f} times faster in bfloat16 here",
            f"up to {seconds / whole * (1 - 1 / gain):.0%} of the operations' time",
            "jaxopt_core.precision.autocast(loss_fn, 'bfloat16')",
        )


def _memory_bound(profile: Profile) -> Iterator[Advice]:
    for program in profile.ran():
        of = [(op, s) for op, s, name in profile.operations() if program.operations.get(name) is op]
        whole = sum(seconds for _, seconds in of)
        streaming = sum(seconds for op, seconds in of if op.kind not in ("dot", "convolution", "custom-call"))
        # The bytes of one pass, for what is less lies in a cache.
        if not whole or streaming / whole < MEMORY_SHARE or program.bytes < 1 << 22:
            continue
        cost = profile.cost(program)
        rate, intensity = cost.runs * cost.bytes / cost.seconds, cost.flops / cost.bytes
        ridge = peak_flops("float32") / peak_bandwidth()
        if intensity < ridge and rate > ROOF_SHARE * peak_bandwidth():
            yield Advice(
                "memory-bound",
                f"{program.name} does {intensity:.1f} operations a byte, where this machine could do "
                f"{ridge:.0f}, and moves {rate / 1e9:.1f} of the {peak_bandwidth() / 1e9:.1f} GB/s that a "
                "pass over a large array reaches",
                "none from faster arithmetic; half the bytes are half the time (a hint: caches are not seen)",
                "bfloat16 for what is large, larger batches where weights are read once a step, fewer passes",
            )


def _compute_bound(profile: Profile) -> Iterator[Advice]:
    for program in profile.ran():
        cost = profile.cost(program)
        if cost.seconds < PROGRAM_SHARE * profile.wall or not cost.bytes:
            continue
        dtype = _dtype_of_products(program)
        rate, peak = cost.runs * cost.flops / cost.seconds, peak_flops(dtype)
        if rate > PEAK_SHARE * peak:
            yield Advice(
                "compute-bound",
                f"{program.name} does {rate / 1e9:.1f} GFLOP/s, and a large {dtype} product on this machine "
                f"{peak / 1e9:.1f}; it does {cost.flops / cost.bytes:.1f} operations a byte",
                "none from the loop, which keeps the arithmetic busy; half the operations are half the time",
                "jaxopt_core.precision.autocast(loss_fn, 'bfloat16') where it pays, a smaller model, or none",
            )


def _dtype_of_products(program: Program) -> str:
    work: collections.Counter[str] = collections.Counter()
    for operation in program.operations.values():
        if operation.product:
            work[operation.product.dtype] += operation.flops
    return _DTYPES.get(max(work, key=lambda dtype: work[dtype], default="f32"), "float32")
