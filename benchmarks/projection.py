"""How long a step would take on many accelerators: counted collectives and stated link speeds.

The model is deliberately simple, and its assumptions are printed with its numbers:

    compute = 6 * parameters * tokens per device / (peak * utilisation)
    volume  = sum over collectives of (array bytes per parameter byte) * parameter bytes * share(n)
    wire    = volume inside a node / node link + volume between nodes / network link
    latency = collectives * 2 log2(n) * hop

with ``share(n)`` of a ring, ``2 (n-1)/n`` for an all-reduce and ``(n-1)/n`` for half of one. Between nodes a
hierarchical collective sends ``1 / devices in a node`` of the volume per device.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

__all__ = ["ASSUMED", "Links", "Projection", "project"]


@dataclasses.dataclass(frozen=True)
class Links:
    """What is assumed of the machine and of the job.

    Attributes:
      peak: floating-point operations per second of a device.
      utilisation: of the peak, by the compute alone.
      node: devices in a node.
      node_link: bytes per second, one way, between devices of a node.
      network_link: bytes per second, one way, that each device has between nodes.
      hop: seconds of latency of one step of a collective's tree.
      parameters: of the model.
      bytes_each: bytes of a parameter, and of its gradient, on the wire.
      tokens: per device and step.
      arrays: of the model, for each of which there is a gather or scatter where there is one here.
    """

    peak: float = 989e12
    utilisation: float = 0.4
    node: int = 8
    node_link: float = 450e9
    network_link: float = 50e9
    hop: float = 5e-6
    parameters: float = 1.558e9
    bytes_each: int = 4
    tokens: int = 16384
    arrays: int = 580

    def __str__(self) -> str:
        return (
            f"assumed: {self.parameters / 1e9:.3g} B parameters of {self.bytes_each} bytes on the wire, "
            f"{self.tokens} tokens per device and step (weak scaling); {self.peak / 1e12:.0f} TFLOP/s at "
            f"{self.utilisation:.0%}; nodes of {self.node}, {self.node_link / 1e9:.0f} GB/s one way inside, "
            f"{self.network_link / 1e9:.0f} GB/s per device between nodes; {self.hop * 1e6:.0f} us a hop; "
            f"bytes per parameter as counted here; one all-reduce, or gathers and scatters for each of "
            f"{self.arrays} arrays as for each here; gathered once a step, all in float32 but for the hook"
        )


ASSUMED = Links()


@dataclasses.dataclass(frozen=True)
class Projection:
    """Milliseconds of a step on ``devices``, and its efficiency without and with overlap."""

    devices: int
    compute_ms: float
    wire_ms: float
    latency_ms: float

    @property
    def efficiency(self) -> float:
        """Share of the time that is compute, if nothing is hidden behind it."""
        return self.compute_ms / (self.compute_ms + self.wire_ms + self.latency_ms)

    @property
    def overlapped(self) -> float:
        """The same if all communication is hidden that fits behind the compute."""
        return self.compute_ms / max(self.compute_ms, self.wire_ms + self.latency_ms)

    def as_dict(self) -> dict[str, float]:
        """All of it, for JSON."""
        both = {"efficiency": self.efficiency, "overlapped": self.overlapped}
        return dataclasses.asdict(self) | both


def project(
    volumes: Mapping[str, float], collectives: int, devices: Sequence[int], links: Links = ASSUMED
) -> list[Projection]:
    """Step times on numbers of devices that are not here.

    Args:
      volumes: operation -> bytes of the arrays in it per byte of parameters, as counted in a program.
      collectives: how many of them a step makes.
      devices: the numbers.
      links: what is assumed.

    Example:
      >>> one = project({"all-reduce": 1.0}, 1, [8])[0]
      >>> print(f"{one.compute_ms:.0f} {one.wire_ms:.1f} {one.efficiency:.2f}")
      387 24.2 0.94
    """
    size = links.parameters * links.bytes_each
    compute = 6 * links.parameters * links.tokens / (links.peak * links.utilisation)
    results = []
    for n in devices:
        inside, nodes = min(n, links.node), max(1, n // links.node)
        wire = 0.0
        for op, ratio in volumes.items():
            factor = 2 if op == "all-reduce" else 1
            volume = factor * ratio * size
            wire += volume * (inside - 1) / inside / links.node_link
            wire += volume / inside * (nodes - 1) / nodes / links.network_link
        latency = collectives * 2 * math.log2(n) * links.hop
        results.append(Projection(n, compute * 1e3, wire * 1e3, latency * 1e3))
    return results
