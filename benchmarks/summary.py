"""Many samples to one line for each proxy. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from benchmarks.peers import OURS
from benchmarks.sample import Sample
from benchmarks.sureness import interval, verdict
from benchmarks.workloads import Measure, Workload

# A ratio this near its target, as a part of it, is close.
_CLOSE = 0.1
# A rival that costs so many times what the best one does will not be the best in more rounds.
_FAR = 1.15


@dataclass(frozen=True)
class Spread:
    """A figure over the rounds."""

    median: float
    least: float
    most: float
    low: float
    high: float
    """The interval of the median: see `benchmarks.sureness`."""

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        return cls(median(values), min(values), max(values), *interval(values))

    @property
    def bounds(self) -> tuple[float, float]:
        return self.low, self.high


@dataclass(frozen=True)
class Line:
    """One proxy at one workload."""

    peer: str
    value: Spread
    ratio: Spread
    """To the best rival, in the same round."""
    of_medians: float
    """The same of both medians, whichever rounds they are of."""
    per_second: float
    p50_us: float
    p99_us: float
    busy: float
    kernel: float
    rounds: int
    connections: int = 0
    """Of memory."""
    grown: float = 0.0
    """Of memory, the median: without what was taken before the first connection."""


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
    def verdict(self) -> str:
        """The same in words, with what chance has to do with it."""
        ours = self.line(OURS)
        if ours is None or self.best is None:
            return "no target"
        # What a process takes is no matter of chance: its rounds are there to show that.
        counted = self.workload.measure is Measure.MEMORY
        spread = (ours.ratio.least, ours.ratio.most) if counted else ours.ratio.bounds
        return verdict(ours.ratio.median, self.workload.target, spread)

    @property
    def doubtful(self) -> bool:
        """Whether the median of more rounds could be on the target's other side."""
        ours = self.line(OURS)
        if ours is None or self.best is None:
            return False
        return ours.ratio.low <= self.workload.target <= ours.ratio.high

    @property
    def close(self) -> bool:
        """Whether it is doubtful, or so little lies between that a few rounds more are due."""
        ours = self.line(OURS)
        if ours is None or self.best is None:
            return False
        return self.doubtful or abs(ours.ratio.median / self.workload.target - 1) <= _CLOSE

    @property
    def far(self) -> set[str]:
        """Rivals that more rounds would not make the best one."""
        rivals = self.workload.rivals.value
        costs = {line.peer: line.value.median for line in self.lines if line.peer in rivals}
        return {peer for peer, cost in costs.items() if cost > _FAR * min(costs.values())}

    @property
    def title(self) -> str:
        """The workload's; of idle connections with how many there were."""
        held = max((line.connections for line in self.lines), default=0)
        if not held:
            return self.workload.title
        wanted = self.workload.connections
        short = f" ({wanted:,} want more descriptors than the host allows)" if held < wanted else ""
        return f"{held:,} {self.workload.title}{short}"


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
                of_medians=_ratio(values[peer], values.get(reference, [])),
                per_second=median(s.per_second for s in taken),
                p50_us=median(s.p50_us for s in taken),
                p99_us=median(s.p99_us for s in taken),
                busy=median(s.busy for s in taken),
                kernel=median(s.kernel for s in taken),
                rounds=len(taken),
                connections=min(s.connections for s in taken),
                grown=median(s.grown for s in taken),
            )
        )
    return Table(workload, best, lines)


def _ratio(values: list[float], reference: list[float]) -> float:
    below = median(reference) if reference else 0.0
    return median(values) / below if below > 0 else float("nan")
