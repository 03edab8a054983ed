"""Who hears of what the fleet does, to count it."""

from __future__ import annotations

from typing import Literal, Protocol

from hyperfleet.guest.values import ProcessEnd
from hyperfleet.machine import How

ExecOutcome = Literal["ended", "timeout", "failed"]


def outcome(end: ProcessEnd | None) -> ExecOutcome:
    """What a process's end is counted as; None: it is not known."""
    if end is None:
        return "failed"
    return "timeout" if end.timed_out else "ended"


class Observer(Protocol):
    """Hears of acts when they are over; must not wait nor raise."""

    def started(self, seconds: float, how: How) -> None:
        """A machine runs, so long after its turn to boot."""

    def start_failed(self) -> None:
        """A boot failed."""

    def start_given_up(self) -> None:
        """A boot was given up: for a stop, or because the control plane ends."""

    def executed(self, outcome: ExecOutcome) -> None:
        """A process that was run in a machine is over, or could not be run."""

    def looked(self, *, seen: bool) -> None:
        """A machine was asked what listens; whether it told."""
