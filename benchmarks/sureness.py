"""How sure a median is, and with it whether a target is met. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb, inf

# How many of a hundred intervals hold the median of endless rounds.
SURE = 0.95


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Two of the values between which, as sure as `SURE`, the median of endless rounds is.

    By their order alone, so whatever they scatter like: each value is above that median or below
    it, as a coin falls. Of fewer than six there is none; then it is without bounds.
    """
    ordered = sorted(values)
    count = len(ordered)
    # Chance that so few values or fewer are below the median; and as many above it.
    outside, rank = 0.0, 0
    while rank < count:
        outside += 2 * comb(count, rank) / 2**count
        if outside > 1 - SURE:
            break
        rank += 1
    return (ordered[rank - 1], ordered[count - rank]) if rank else (-inf, inf)


def verdict(value: float, target: float | None, bounds: tuple[float, float] | None) -> str:
    """Whether `value`, which may be a target at most, is met, and what chance has to do with it.

    `bounds`: where `value` may lie as well; `None` where it is no matter of chance.
    """
    if target is None:
        return "no target"
    told = "met" if value <= target else "not met"
    if bounds is None or not bounds[0] <= target <= bounds[1]:
        return told
    few = bounds == (-inf, inf)
    return f"{told}, of too few rounds" if few else f"{told}, by less than the noise"
