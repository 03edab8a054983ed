"""Figures of ours that stand beside a bound, not beside a rival. Pure."""

from __future__ import annotations

from dataclasses import dataclass


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

    @property
    def met(self) -> bool | None:
        """Whether the target is met; `None` without one."""
        return None if self.target is None else self.value <= self.target


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
