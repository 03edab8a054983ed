"""Figures from what was measured at several numbers of machines. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from benchmarks.figures import Figure

# What "no worse than linear" leaves to a noisy host: the cost of one, with ten times as many.
LINEAR = 1.25
# API calls while everything is discovered, beside the same calls while nothing is.
UNDISTURBED = 2.0


# Of each kind of request, by the number of machines: milliseconds of CPU for one, by rounds.
Turns = dict[str, dict[int, list[float]]]


@dataclass(frozen=True)
class Work:
    """One kind of request at one size of the fleet."""

    what: str
    machines: int
    requests: int
    seconds: float
    p99_ms: float
    cpu_s: float
    """The control plane's CPU time for all of them."""

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds

    @property
    def cpu_ms(self) -> float:
        """CPU time of the control plane for one, milliseconds."""
        return self.cpu_s / self.requests * 1000


def figures(measured: Sequence[Work]) -> list[Figure]:
    """Every kind of work at the largest size."""
    found: list[Figure] = []
    for what in dict.fromkeys(work.what for work in measured):
        last = max((one for one in measured if one.what == what), key=lambda one: one.machines)
        how = f"p99 {last.p99_ms:.1f} ms, {last.cpu_ms:.2f} ms of CPU each"
        title = f"{last.machines:,} machines: {what}"
        found.append(Figure("crowd", title, last.rate, "a second", None, how))
    return found


def of_turns(turns: Turns) -> list[Figure]:
    """The growth of every kind of request from each size to the next, compared within rounds."""
    found: list[Figure] = []
    for what, sizes in turns.items():
        for fewer, more in pairwise(sorted(sizes)):
            title = f"{what}: CPU of one among {more:,}, beside among {fewer:,}"
            ratios = [much / little for little, much in zip(sizes[fewer], sizes[more], strict=True)]
            told = f"{median(sizes[more]):.2f} and {median(sizes[fewer]):.2f} ms"
            found.append(Figure.of_ratios("growth", title, ratios, LINEAR, told))
    return found


def of_sizes(title: str, unit: str, values: Sequence[tuple[int, float]]) -> list[Figure]:
    """Something that each machine takes, by the number of machines: it must not grow with it.

    What a number of machines took nothing of, as far as could be seen, tells nothing of growth.
    """
    ordered = sorted(values)
    machines, value = ordered[-1]
    told = ", ".join(f"{one:.3g} with {size:,}" for size, one in ordered[:-1])
    found = [Figure("crowd", f"{machines:,} machines: {title}", value, unit, None, told)]
    found += [
        Figure(
            "growth",
            f"{title}: with {more[0]:,}, beside {fewer[0]:,}",
            more[1] / fewer[1],
            "times",
            LINEAR,
            f"{more[1]:.3g} and {fewer[1]:.3g} {unit}",
        )
        for fewer, more in pairwise(ordered)
        if fewer[1] > 0
    ]
    return found


def disturbance(
    what: str, idle_ms: float, meanwhile_ms: float, looks_a_second: float, beside: int
) -> Figure:
    """API calls while machines are discovered, beside the same of `beside` that are not."""
    return Figure(
        "crowd",
        f"{what} while all are discovered: p99 beside that of a fleet that is not",
        meanwhile_ms / idle_ms,
        "times",
        UNDISTURBED,
        f"{meanwhile_ms:.1f} and {idle_ms:.1f} ms, of {beside:,} machines asked in turns; "
        f"{looks_a_second:,.0f} machines seen a second",
    )
