"""Many samples to one line for each proxy. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from benchmarks.peers import OURS
from benchmarks.sample import Sample
from benchmarks.workloads import Workload

# A ratio this near its target, as a part of it, is close.
_CLOSE = 0.1


@dataclass(frozen=True)
class Spread:
    """A figure over the rounds."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        return cls(median(values), min(values), max(values))


@dataclass(frozen=True)
class Line:
    """One proxy at one workload."""

    peer: str
    value: Spread
    ratio: Spread
    """To the best rival, in the same round."""
    per_second: float
    p50_us: float
    p99_us: float
    busy: float
    kernel: float
    rounds: int


@dataclass(frozen=True)
class Table:
    """One workload."""

    workload: Workload
    best: str | None
    """The rival that ours is held against: the one with the lowest median."""
    lines: list[Line]

    def line(self, peer: str) -> Line | None:
        return next((line for line in self.lines if line.peer == peer), None)

    @property
    def met(self) -> bool | None:
        """Whether the target is met; `None` where there is nothing to compare."""
        ours = self.line(OURS)
        if ours is None or self.best is None:
            return None
        return ours.ratio.median <= self.workload.target

    @property
    def close(self) -> bool:
        """Whether so little lies between ratio and target that more rounds could turn it."""
        ours = self.line(OURS)
        if ours is None or self.best is None:
            return False
        return abs(ours.ratio.median / self.workload.target - 1) <= _CLOSE


def summarize(workload: Workload, samples: list[Sample]) -> Table:
    """The samples of one workload; its lines are in the order of the peers' first samples."""
    by_peer: dict[str, dict[int, Sample]] = {}
    for sample in samples:
        if sample.workload == workload.key:
            by_peer.setdefault(sample.peer, {})[sample.round] = sample
    values = {peer: [s.value for s in rounds.values()] for peer, rounds in by_peer.items()}
    rivals = [peer for peer in workload.rivals.value if peer in by_peer]
    best = min(rivals, key=lambda peer: median(values[peer]), default=None)
    # Without a rival ours is the measure of the others.
    reference = best or OURS
    lines = []
    for peer, rounds in by_peer.items():
        taken = list(rounds.values())
        ratios = [
            sample.value / by_peer[reference][number].value
            for number, sample in rounds.items()
            if number in by_peer.get(reference, {}) and by_peer[reference][number].value > 0
        ]
        lines.append(
            Line(
                peer=peer,
                value=Spread.of(values[peer]),
                ratio=Spread.of(ratios or [float("nan")]),
                per_second=median(s.per_second for s in taken),
                p50_us=median(s.p50_us for s in taken),
                p99_us=median(s.p99_us for s in taken),
                busy=median(s.busy for s in taken),
                kernel=median(s.kernel for s in taken),
                rounds=len(taken),
            )
        )
    return Table(workload, best, lines)
