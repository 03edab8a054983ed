"""One measurement of one proxy."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sample:
    """One proxy, one workload, once."""

    workload: str
    peer: str
    round: int
    value: float
    """What the workload compares, for one unit: see `Measure`."""
    per_second: float
    """Units."""
    p50_us: float
    p99_us: float
    busy: float
    """CPU time as a part of the time taken: near 1, the proxy was the limit."""
    kernel: float = 0.0
    """The kernel's part of the CPU time, 0 to 1."""
    connections: int = 0
    """Of memory: idle ones that were held."""
    grown: float = 0.0
    """Of memory: without what was taken before the first of them."""
