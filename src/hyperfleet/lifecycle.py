"""The states of a machine and who may go where: one table."""

from __future__ import annotations

from enum import StrEnum


class Status(StrEnum):
    """Where a machine is in its life."""

    PENDING = "pending"
    STARTING = "starting"
    RUNNING = "running"
    PAUSED = "paused"
    SLEEPING = "sleeping"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"


_S = Status

# from -> where a machine may go next. `failed` from running: it died by itself.
TRANSITIONS: dict[Status, frozenset[Status]] = {
    # To stopped or sleeping, also from what is at rest otherwise: by a snapshot put back.
    _S.PENDING: frozenset({_S.STARTING, _S.STOPPED, _S.SLEEPING}),
    # To sleeping: it could not be woken, and sleeps on.
    _S.STARTING: frozenset({_S.RUNNING, _S.STOPPING, _S.FAILED, _S.SLEEPING}),
    _S.RUNNING: frozenset({_S.PAUSED, _S.SLEEPING, _S.STOPPING, _S.STOPPED, _S.FAILED}),
    _S.PAUSED: frozenset({_S.RUNNING, _S.SLEEPING, _S.STOPPING, _S.STOPPED, _S.FAILED}),
    # To running or paused: its memory could not be saved.
    _S.SLEEPING: frozenset({_S.STARTING, _S.RUNNING, _S.PAUSED, _S.STOPPING, _S.FAILED}),
    _S.STOPPING: frozenset({_S.STOPPED, _S.FAILED}),
    # To failed: it was to be started by itself, and can't be.
    _S.STOPPED: frozenset({_S.STARTING, _S.FAILED, _S.SLEEPING}),
    # To stopped: it would have been started again, and its user does not want that.
    _S.FAILED: frozenset({_S.STARTING, _S.STOPPED, _S.SLEEPING}),
}

# A machine in one of these has a process, or may have one after a crash of the control plane.
ALIVE = frozenset({_S.STARTING, _S.RUNNING, _S.PAUSED, _S.STOPPING})
# A machine in one of these may be deleted without force.
AT_REST = frozenset({_S.PENDING, _S.STOPPED, _S.FAILED})


def may_go(origin: Status, target: Status) -> bool:
    """Whether the table allows this step."""
    return target in TRANSITIONS[origin]
