"""What a part of the benchmark is given."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.load import Ends
from benchmarks.peers import Peer
from benchmarks.rounds import Plan


@dataclass(frozen=True)
class Setting:
    """Ours, both ends, and how long."""

    ours: Peer
    ends: Ends
    plan: Plan
    machines: int
    """In a large table."""
