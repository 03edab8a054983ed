"""Figures of ours that stand beside a bound, not beside a rival. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.sureness import interval, verdict


@dataclass(frozen=True)
class Figure:
    """One row of the results."""

    part: str
    """The key of the part that measured it."""
    title: str
    value: float
    unit: str
    target: float | None
    """At most so much; `None`: there is no target, it is told to be seen."""
    beside: str = ""
    """What it was held against, or how it came about."""
    low: float | None = None
    high: float | None = None
    """Where a value that chance has moved lies as sure as 95 of 100: `benchmarks.sureness`."""

    @property
    def met(self) -> bool | None:
        """Whether the target is met; `None` without one."""
        return None if self.target is None else self.value <= self.target

    @property
    def verdict(self) -> str:
        """The same in words, with what chance has to do with it."""
        return verdict(self.value, self.target, self.bounds)

    @property
    def bounds(self) -> tuple[float, float] | None:
        """`low` and `high`; `None` where chance has moved nothing."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    @classmethod
    def of_ratios(
        cls,
        part: str,
        title: str,
        values: Sequence[float],
        target: float | None,
        beside: str = "",
    ) -> Figure:
        """The median of all rounds' ratios, with its interval; told after `beside`."""
        low, high = interval(values)
        spread = f"{min(values):.2f} to {max(values):.2f}, rounds: {len(values)}"
        told = f"{beside}; {spread}" if beside else spread
        return cls(part, title, median(values), "times", target, told, low, high)


def quantile(values: list[float], part: float) -> float:
    """The value that `part` (0 to 1) of `values` are not above.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        msg = "no values"
        raise ValueError(msg)
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]
