"""Whether and when a machine that is down comes up again by itself. Tables and functions, no I/O.

Only a machine that is meant to run does: one that its user has stopped stays stopped.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import Enum, auto

import msgspec

from hyperfleet.lifecycle import Status
from hyperfleet.machine import Machine, Restart


class End(Enum):
    """How it came to be down, without its user's wish."""

    # The guest switched itself off in order.
    POWERED_OFF = auto()
    # Its process died, or the guest's kernel did.
    DIED = auto()
    # It was started by itself and did not come up.
    NO_BOOT = auto()


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Times in seconds. `tries`: how often in a row; 0: without end."""

    first_wait: float = 1.0
    longest_wait: float = 60.0
    # One that ran as long is sound: it begins anew with `first_wait` and all its tries.
    calm: float = 600.0
    tries: int = 10


class Next(msgspec.Struct, frozen=True):
    """What is next: a start at `start_at` (None: it stays down), after `restarts` in a row."""

    start_at: datetime | None
    restarts: int
    given_up: bool = False


_WANTED: dict[Restart, frozenset[End]] = {
    Restart.NEVER: frozenset(),
    Restart.ON_FAILURE: frozenset({End.DIED, End.NO_BOOT}),
    Restart.ALWAYS: frozenset(End),
}


def after_end(
    machine: Machine, end: End, now: datetime, limits: Limits, *, restarts: int | None = None
) -> Next:
    """What comes after an end that is seen at `now`.

    `restarts`: how often it was started by itself, where that is not yet written down.
    """
    done = machine.restarts if restarts is None else restarts
    if end is not End.NO_BOOT and machine.started_at is not None:
        ran = (now - machine.started_at).total_seconds()
        done = 0 if ran >= limits.calm else done
    if end not in _WANTED[machine.spec.restart]:
        return Next(None, done)
    if limits.tries and done >= limits.tries:
        return Next(None, done, given_up=True)
    # 2.0 ** 1024 is no float; far before it the longest wait is reached.
    wait = min(limits.first_wait * 2.0 ** min(done, 64), limits.longest_wait)
    return Next(now + timedelta(seconds=wait), done)


def rebooted(machine: Machine, host_boot: str) -> bool:
    """Whether the host was started anew since the machine was: nothing is wrong with it then."""
    return machine.host_boot is not None and machine.host_boot != host_boot


def why_dead(machine: Machine, host_boot: str) -> str:
    """What became of a machine that should run, and that a control plane finds without process."""
    if rebooted(machine, host_boot):
        return "the host was started anew"
    if machine.status is Status.STARTING:
        return "the control plane ended while the machine started; start it again"
    return "the machine ended while no control plane ran"


def at_start(machine: Machine, host_boot: str, now: datetime, limits: Limits) -> Next:
    """What comes of a machine that should run, and that a control plane finds without process."""
    if rebooted(machine, host_boot):
        return Next(now if machine.spec.autostart else None, 0)
    if machine.spec.autostart and machine.spec.restart is Restart.NEVER:
        return Next(now, machine.restarts)
    # When it ended is not known: it is not called sound for the time that nobody looked.
    return after_end(machine, End.NO_BOOT, now, limits)
