"""How far a run is, on stderr: what was done, and about how long the rest takes."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping


class Progress:
    """Of steps whose length was guessed; the guesses follow what the first ones took."""

    def __init__(
        self, guesses: Mapping[str, float], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`guesses`: seconds of each step, by its name."""
        self._clock = clock
        self._guesses = dict(guesses)
        self._left = dict(guesses)
        self._took = 0.0
        self._began = self._step = clock()
        _tell(f"steps: {len(self._left)}, about {minutes(self.left)}")

    @property
    def left(self) -> float:
        """Seconds that the rest takes, if the guesses are as wrong as they were so far."""
        guessed = sum(self._guesses.values()) - sum(self._left.values())
        return sum(self._left.values()) * (self._took / guessed if guessed else 1.0)

    def done(self, name: str, note: str = "") -> None:
        """A step is over; one that nobody guessed is told alone."""
        now = self._clock()
        took, self._step = now - self._step, now
        if self._left.pop(name, None) is not None:
            self._took += took
        more = f", {note}" if note else ""
        rest = f"; {len(self._left)} left, about {minutes(self.left)}" if self._left else ""
        _tell(f"{minutes(now - self._began)} {name}: {took:.0f} s{more}{rest}")


def minutes(seconds: float) -> str:
    """As a clock shows them."""
    whole = round(seconds)
    return f"{whole // 60}:{whole % 60:02d} min"


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
