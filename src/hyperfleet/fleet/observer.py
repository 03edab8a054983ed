"""Who hears of what the fleet does, to count it."""

from __future__ import annotations

from typing import Literal, Protocol

ExecOutcome = Literal["ended", "timeout", "failed"]


class Observer(Protocol):
    """Hears of acts when they are over; must not wait nor raise."""

    def started(self, seconds: float) -> None:
        """A machine runs, so long after its boot was asked for."""

    def start_failed(self) -> None:
        """A boot failed."""

    def start_given_up(self) -> None:
        """A boot was given up: for a stop, or because the control plane ends."""

    def executed(self, outcome: ExecOutcome) -> None:
        """A process that was run in a machine is over, or could not be run."""

    def looked(self, *, seen: bool) -> None:
        """A machine was asked what listens; whether it told."""
