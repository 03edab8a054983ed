"""What a request means in a machine's state: tables and pure functions, no I/O.

A machine does one thing at a time; requests wait in a queue. A request is looked at twice: when it
arrives (may it wait, or share what is under way?) and when its turn comes (what is to be done?).
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, auto

from hyperfleet.lifecycle import AT_REST, Status

_S = Status


class Want(Enum):
    """What may be asked of a machine's owner; from COMPLETE on, it asks it of itself."""

    START = auto()
    STOP = auto()
    RESTART = auto()
    DELETE = auto()
    PAUSE = auto()
    RESUME = auto()
    SLEEP = auto()
    # Keeps it as it is under a name.
    SNAPSHOT = auto()
    # Puts a snapshot of it back.
    RESTORE = auto()
    # Other ports exposed, other labels.
    CHANGE = auto()
    # A control plane before this one left the machine in the middle of something.
    COMPLETE = auto()
    # It is time for a start that was recorded for later.
    REVIVE = auto()
    # The process was seen to end.
    DIED = auto()
    # Discovery has looked at the ports.
    SIGHT = auto()
    # The guest has broken the agent's protocol.
    FAULT = auto()
    # The machine's command is not as it was.
    COMMAND = auto()
    # It stands still by itself, or goes on.
    STALLED = auto()
    # It was idle for so long that it is to sleep.
    DOZE = auto()


class Act(Enum):
    """What an owner does."""

    # Finds out whether it could start, before anything is stopped for that.
    CHECK = auto()
    # Writes down that the machine is to start.
    PREPARE = auto()
    BOOT = auto()
    # The same for a start by itself.
    PREPARE_AGAIN = auto()
    # Takes up a boot whose process is there already.
    COME_UP = auto()
    HALT = auto()
    # The same where a start follows, which is written down with it.
    HALT_TO_START = auto()
    # Writes down that it is not started by itself after all.
    STAND_DOWN = auto()
    REMOVE = auto()
    PAUSE = auto()
    GO_ON = auto()
    SLEEP = auto()
    SAVE = auto()
    # Copies a snapshot to beside the machine.
    FETCH = auto()
    # Ends it at once.
    CUT = auto()
    # Makes the machine what was fetched.
    PUT_BACK = auto()
    # Writes down what is to change.
    AMEND = auto()
    # Ways in, looks and routes of a machine with a process follow what was written down.
    FOLLOW = auto()
    SETTLE = auto()
    NOTE = auto()
    # Writes down what the guest did.
    BLAME = auto()
    # Writes down how it stands with the command.
    TELL = auto()
    # Says that it stands still, and why; or that it does not, and has its clock set.
    STALL = auto()


class Arrival(Enum):
    """What becomes of a request that arrives."""

    WAIT = auto()
    # It gets the answer of the newest request before it, which wants the same.
    JOIN = auto()
    REFUSE = auto()


# What to do, or in words why not.
Plan = tuple[Act, ...] | str

_LIFE = frozenset(
    {
        Want.START,
        Want.STOP,
        Want.RESTART,
        Want.DELETE,
        Want.PAUSE,
        Want.RESUME,
        Want.SLEEP,
        Want.RESTORE,
    }
)
# Each of these is one of its own, whatever others ask for.
_UNLIKE = frozenset({Want.CHANGE, Want.SNAPSHOT, Want.RESTORE})
_BOOTS = frozenset({Want.START, Want.RESTART, Want.COMPLETE, Want.REVIVE})
_ENDS_A_BOOT = frozenset({Want.STOP, Want.RESTART})
_NOTHING_RUNS = "start it first"
_STOP_FIRST = "stop it first, or delete with force=true"

_PLANS: dict[Want, dict[Status, Plan]] = {
    Want.START: {
        _S.PENDING: (Act.PREPARE, Act.BOOT),
        _S.STARTING: (Act.HALT, Act.PREPARE, Act.BOOT),
        _S.RUNNING: (),
        _S.PAUSED: "resume it instead",
        _S.SLEEPING: (Act.PREPARE, Act.BOOT),
        _S.STOPPING: (Act.HALT, Act.PREPARE, Act.BOOT),
        _S.STOPPED: (Act.PREPARE, Act.BOOT),
        _S.FAILED: (Act.PREPARE, Act.BOOT),
    },
    Want.STOP: {
        _S.PENDING: "it was never started",
        _S.STARTING: (Act.HALT,),
        _S.RUNNING: (Act.HALT,),
        _S.PAUSED: (Act.HALT,),
        _S.SLEEPING: (Act.HALT,),
        _S.STOPPING: (Act.HALT,),
        _S.STOPPED: (),
        _S.FAILED: "nothing of it runs; start it again, or delete it",
    },
    # What runs is stopped, if it could start again, and starts; what does not run only starts.
    Want.RESTART: {
        _S.PENDING: (Act.PREPARE, Act.BOOT),
        _S.STARTING: (Act.HALT_TO_START, Act.PREPARE, Act.BOOT),
        _S.RUNNING: (Act.CHECK, Act.HALT_TO_START, Act.PREPARE, Act.BOOT),
        _S.PAUSED: (Act.CHECK, Act.HALT_TO_START, Act.PREPARE, Act.BOOT),
        _S.SLEEPING: (Act.CHECK, Act.HALT_TO_START, Act.PREPARE, Act.BOOT),
        _S.STOPPING: (Act.HALT_TO_START, Act.PREPARE, Act.BOOT),
        _S.STOPPED: (Act.PREPARE, Act.BOOT),
        _S.FAILED: (Act.PREPARE, Act.BOOT),
    },
    Want.DELETE: {
        _S.PENDING: (Act.REMOVE,),
        _S.STARTING: _STOP_FIRST,
        _S.RUNNING: _STOP_FIRST,
        _S.PAUSED: _STOP_FIRST,
        _S.SLEEPING: _STOP_FIRST,
        _S.STOPPING: _STOP_FIRST,
        _S.STOPPED: (Act.REMOVE,),
        _S.FAILED: (Act.REMOVE,),
    },
    # Starting and stopping: as it is written down after an act that was broken off.
    Want.PAUSE: {
        _S.PENDING: _NOTHING_RUNS,
        _S.STARTING: _NOTHING_RUNS,
        _S.RUNNING: (Act.PAUSE,),
        _S.PAUSED: (),
        _S.SLEEPING: _NOTHING_RUNS,
        _S.STOPPING: _NOTHING_RUNS,
        _S.STOPPED: _NOTHING_RUNS,
        _S.FAILED: _NOTHING_RUNS,
    },
    Want.RESUME: {
        _S.PENDING: _NOTHING_RUNS,
        _S.STARTING: _NOTHING_RUNS,
        _S.RUNNING: (),
        _S.PAUSED: (Act.GO_ON,),
        _S.SLEEPING: "start it instead",
        _S.STOPPING: _NOTHING_RUNS,
        _S.STOPPED: _NOTHING_RUNS,
        _S.FAILED: _NOTHING_RUNS,
    },
    Want.SLEEP: {
        _S.PENDING: _NOTHING_RUNS,
        _S.STARTING: _NOTHING_RUNS,
        _S.RUNNING: (Act.SLEEP,),
        _S.PAUSED: (Act.SLEEP,),
        _S.SLEEPING: (),
        _S.STOPPING: _NOTHING_RUNS,
        _S.STOPPED: _NOTHING_RUNS,
        _S.FAILED: _NOTHING_RUNS,
    },
    # Starting and stopping: as above.
    Want.SNAPSHOT: {
        _S.PENDING: "it was never started, so there is nothing to keep",
        _S.STARTING: _NOTHING_RUNS,
        _S.RUNNING: (Act.SAVE,),
        _S.PAUSED: (Act.SAVE,),
        _S.SLEEPING: (Act.SAVE,),
        _S.STOPPING: _NOTHING_RUNS,
        _S.STOPPED: (Act.SAVE,),
        _S.FAILED: (Act.SAVE,),
    },
    Want.RESTORE: {
        _S.PENDING: (Act.FETCH, Act.PUT_BACK),
        _S.STARTING: (Act.FETCH, Act.CUT, Act.PUT_BACK),
        _S.RUNNING: (Act.FETCH, Act.CUT, Act.PUT_BACK),
        _S.PAUSED: (Act.FETCH, Act.CUT, Act.PUT_BACK),
        _S.SLEEPING: (Act.FETCH, Act.CUT, Act.PUT_BACK),
        _S.STOPPING: (Act.FETCH, Act.CUT, Act.PUT_BACK),
        _S.STOPPED: (Act.FETCH, Act.PUT_BACK),
        _S.FAILED: (Act.FETCH, Act.PUT_BACK),
    },
    # Starting and stopping: an act was broken off; the next one goes by what is written down.
    Want.CHANGE: {
        _S.PENDING: (Act.AMEND,),
        _S.STARTING: (Act.AMEND,),
        _S.RUNNING: (Act.AMEND, Act.FOLLOW),
        _S.PAUSED: (Act.AMEND, Act.FOLLOW),
        _S.SLEEPING: (Act.AMEND,),
        _S.STOPPING: (Act.AMEND,),
        _S.STOPPED: (Act.AMEND,),
        _S.FAILED: (Act.AMEND,),
    },
    Want.COMPLETE: {_S.STARTING: (Act.COME_UP,), _S.STOPPING: (Act.HALT,)},
    Want.REVIVE: {
        _S.STOPPED: (Act.PREPARE_AGAIN, Act.BOOT),
        _S.FAILED: (Act.PREPARE_AGAIN, Act.BOOT),
    },
    Want.DIED: {_S.RUNNING: (Act.SETTLE,), _S.PAUSED: (Act.SETTLE,)},
    Want.SIGHT: {_S.RUNNING: (Act.NOTE,)},
    Want.FAULT: {_S.RUNNING: (Act.BLAME,)},
    # It is told once: what comes while the machine stops running for a while is written down too.
    Want.COMMAND: dict.fromkeys((_S.RUNNING, _S.PAUSED, _S.SLEEPING), (Act.TELL,)),
    Want.STALLED: {_S.RUNNING: (Act.STALL,)},
    Want.DOZE: {_S.RUNNING: (Act.SLEEP,)},
}


def on_arrival(
    status: Status, under_way: Want | None, queued: Sequence[Want], want: Want, *, force: bool
) -> Arrival:
    """Whether a request may wait for its turn.

    Args:
        status: the machine's.
        under_way: the request that is being done now.
        queued: those that wait, oldest first.
        want: what is asked now.
        force: with DELETE: stop first.
    """
    if want is Want.DELETE:
        changing = status in (_S.STARTING, _S.STOPPING)
        return Arrival.REFUSE if changing and not force else Arrival.WAIT
    if want in _UNLIKE:
        return Arrival.WAIT
    # A change or a snapshot between two wishes for the same life alters nothing.
    asked = [before for before in (under_way, *queued) if before in _LIFE]
    return Arrival.JOIN if asked and asked[-1] is want else Arrival.WAIT


def on_turn(status: Status, want: Want, *, force: bool, waiting: bool = False) -> Plan:
    """What a request leads to, now that its turn has come; an empty plan: it is so already.

    `waiting`: a start by itself is written down for later.
    """
    plan = _PLANS[want].get(status, ())
    if waiting and want is Want.STOP and status in AT_REST:
        return (Act.STAND_DOWN,)
    if waiting and want is Want.COMPLETE and status is _S.STOPPING:
        return (Act.HALT_TO_START,)
    if not waiting and want is Want.REVIVE:
        return ()
    if want is Want.DELETE and force and isinstance(plan, str):
        return (Act.HALT, Act.REMOVE)
    return plan


def interrupts(under_way: Want | None, queued: Sequence[Want]) -> bool:
    """Whether the boot under way is to be given up for what waits."""
    following = next((want for want in queued if want in _LIFE), None)
    return under_way in _BOOTS and following in _ENDS_A_BOOT


def refusal(want: Want, name: str, status: Status, why: str) -> str:
    """The sentence for a request that is refused."""
    verbs = {
        Want.START: "started",
        Want.STOP: "stopped",
        Want.RESTART: "restarted",
        Want.DELETE: "deleted",
        Want.CHANGE: "changed",
        Want.PAUSE: "paused",
        Want.RESUME: "resumed",
        Want.SLEEP: "put to sleep",
        Want.SNAPSHOT: "kept as a snapshot",
        Want.RESTORE: "restored",
    }
    return f"machine {name!r} is {status} and can't be {verbs[want]}: {why}"
