"""What may happen to machines, and what must be so then."""

from __future__ import annotations

import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from hyperfleet.errors import ConflictError, HyperfleetError, InvalidStateError, NotFoundError
from hyperfleet.failpoints import Point
from hyperfleet.lifecycle import AT_REST, Status
from hyperfleet.machine import Restart
from support.model.subject import ANOTHER, Act, Asked, Call, Known, Refused, Subject, kept_as

_S = Status
NAMES = st.sampled_from(["a", "b", "c"])
NUMBERS = st.integers(0, 2)
PORTS = st.lists(st.integers(80, 83), unique=True, max_size=3).map(tuple)
ASKED = st.builds(Asked, ports=PORTS, restart=st.sampled_from(Restart), autostart=st.booleans())
# What a control plane that is killed in the middle of an act may leave, besides what was there.
LEAVES: dict[Act, frozenset[Status | None]] = {
    "start": frozenset({_S.RUNNING, _S.FAILED}),
    "stop": frozenset({_S.STOPPED}),
    "restart": frozenset({_S.RUNNING, _S.FAILED}),
    "delete": frozenset({None, _S.STOPPED}),
    "change": frozenset(),
    "pause": frozenset({_S.PAUSED}),
    "resume": frozenset({_S.RUNNING}),
    # Running: also one that was paused, of which it is not known any more.
    "sleep": frozenset({_S.SLEEPING, _S.RUNNING}),
    "snapshot": frozenset(),
    "restore": frozenset({_S.STOPPED, _S.SLEEPING}),
    "wake": frozenset({_S.RUNNING}),
}
# On the way of each, by the beginning of their names.
_ON_THE_WAY: dict[Act, tuple[str, ...]] = {
    "start": ("start", "spawn", "boot", "look.done"),
    "stop": ("stop",),
    "restart": ("stop", "restart", "start", "spawn", "boot"),
    "delete": ("stop", "delete"),
    "change": ("change.recorded", "change.published"),
    "pause": ("pause",),
    "resume": ("resume",),
    "sleep": ("sleep",),
    "snapshot": ("snapshot",),
    "restore": ("restore",),
    "wake": ("start", "spawn", "wake", "boot"),
}
WHERE = [
    (act, point) for act, ways in _ON_THE_WAY.items() for point in Point if point.startswith(ways)
]
# The status in which an act mostly comes to its points; in any, unless said.
_USUAL: dict[Act, Status] = {
    "start": _S.STOPPED,
    "stop": _S.RUNNING,
    "restart": _S.RUNNING,
    "delete": _S.RUNNING,
    "pause": _S.RUNNING,
    "resume": _S.PAUSED,
    "sleep": _S.RUNNING,
    "snapshot": _S.RUNNING,
    "restore": _S.RUNNING,
    "wake": _S.SLEEPING,
}
# Those that a call is for; in the others it is refused.
_FOR: dict[Call, frozenset[Status]] = {
    "start": frozenset(_S) - {_S.PAUSED},
    "restart": frozenset(_S),
    "stop": frozenset(_S) - {_S.PENDING, _S.FAILED},
    "pause": frozenset({_S.RUNNING, _S.PAUSED}),
    "resume": frozenset({_S.RUNNING, _S.PAUSED}),
    "sleep": frozenset({_S.RUNNING, _S.PAUSED, _S.SLEEPING}),
}
_LEADS_TO: dict[Call, Status] = {
    "start": _S.RUNNING,
    "restart": _S.RUNNING,
    "stop": _S.STOPPED,
    "pause": _S.PAUSED,
    "resume": _S.RUNNING,
    "sleep": _S.SLEEPING,
}


class Rules(RuleBasedStateMachine):
    """Each rule is one thing that happens, waited for to its end. A test says to what."""

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[str, Known] = {}
        self.subject = self.begin()

    def begin(self) -> Subject:
        """What it is held against, new."""
        raise NotImplementedError

    def teardown(self) -> None:
        self.subject.close()

    @initialize(asked=ASKED)
    def begin_with_some(self, asked: Asked) -> None:
        for name in ("a", "b"):
            self.create(name, msgspec.structs.replace(asked, ports=(80,)))
            self.start(name)

    @rule(name=NAMES, asked=ASKED)
    def create(self, name: str, asked: Asked) -> None:
        answer = self.subject.create(name, asked)
        if name in self.known:
            assert _is(answer, ConflictError)
        else:
            assert answer is _S.PENDING
            self.known[name] = Known(asked)

    @rule(name=NAMES)
    def start(self, name: str) -> None:
        self._call("start", name)

    @rule(name=NAMES)
    def restart(self, name: str) -> None:
        self._call("restart", name)

    @rule(name=NAMES)
    def stop(self, name: str) -> None:
        self._call("stop", name)

    @rule(name=NAMES, ends=st.booleans())
    def pause_or_resume(self, name: str, ends: bool) -> None:
        self._call("resume" if ends else "pause", name)

    @rule(name=NAMES)
    def sleep(self, name: str) -> None:
        self._call("sleep", name)

    @rule(name=NAMES)
    def snapshot(self, name: str) -> None:
        known = self.known.get(name)
        if known is not None and known.kept is not None:
            self.subject.remove_snapshot(kept_as(name))
            known.kept = None
        answer = self.subject.snapshot(name, kept_as(name))
        if known is None:
            assert _is(answer, NotFoundError)
        elif isinstance(answer, Refused):
            # A machine that failed as it was first made has no disk.
            assert _is(answer, InvalidStateError)
            assert known.status in (_S.PENDING, _S.FAILED)
        else:
            assert answer == (known.status in (_S.RUNNING, _S.PAUSED, _S.SLEEPING))
            known.kept = (known.file, answer)

    @rule(name=NAMES)
    def restore(self, name: str) -> None:
        answer = self.subject.restore(name, kept_as(name))
        known = self.known.get(name)
        if known is None or known.kept is None:
            assert _is(answer, NotFoundError)
        else:
            known.file, has_memory = known.kept
            known.status = _S.SLEEPING if has_memory else _S.STOPPED
            assert answer is known.status

    @rule(name=NAMES, force=st.booleans())
    def delete(self, name: str, force: bool) -> None:
        answer = self.subject.delete(name, force=force)
        known = self.known.get(name)
        if known is None:
            assert _is(answer, NotFoundError)
        elif known.status not in AT_REST and not force:
            assert _is(answer, InvalidStateError)
        else:
            assert answer is None
            self._forget(name)

    @rule(name=NAMES, asked=ASKED)
    def change(self, name: str, asked: Asked) -> None:
        answer = self.subject.change(name, asked)
        known = self.known.get(name)
        if known is None:
            assert _is(answer, NotFoundError)
        else:
            assert answer is known.status
            known.asked = asked

    @rule(name=NAMES, word=st.sampled_from(["x", "y"]))
    def write(self, name: str, word: str) -> None:
        # It is on the disk before the next thing happens.
        answer = self.subject.run(name, "sh", "-c", f"echo {word} > /file; sync")
        if isinstance(answer, Refused):
            assert self._does_not_run(name, answer)
        else:
            assert answer.exit_code == 0
            self.known[name].file = f"{word}\n".encode()

    @rule(name=NAMES)
    def read(self, name: str) -> None:
        answer = self.subject.run(name, "cat", "/file")
        if isinstance(answer, Refused):
            assert self._does_not_run(name, answer)
        elif self.known[name].file is None:
            assert answer.exit_code == 1
        else:
            assert answer.stdout == self.known[name].file

    @rule(number=NUMBERS)
    def die(self, number: int) -> None:
        if name := self._pick(number, _S.RUNNING):
            self.subject.die(name)
            again = self.known[name].asked.restart is not Restart.NEVER
            self.known[name].status = _S.RUNNING if again else _S.FAILED

    @rule(number=NUMBERS)
    def power_off(self, number: int) -> None:
        if name := self._pick(number, _S.RUNNING):
            self.subject.power_off(name)
            again = self.known[name].asked.restart is Restart.ALWAYS
            self.known[name].status = _S.RUNNING if again else _S.STOPPED

    @rule(orderly=st.booleans())
    def another_control_plane(self, orderly: bool) -> None:
        self.subject.another_control_plane(orderly=orderly)

    @rule(reboot=st.booleans())
    def all_die_while_no_control_plane_runs(self, reboot: bool) -> None:
        self.subject.all_die(reboot=reboot)
        for known in self.known.values():
            if known.status in (_S.RUNNING, _S.PAUSED):
                by_policy = known.asked.restart is not Restart.NEVER and not reboot
                again = known.asked.autostart or by_policy
                known.status = _S.RUNNING if again else _S.FAILED

    @rule(number=NUMBERS, where=st.sampled_from(WHERE))
    def killed_at(self, number: int, where: tuple[Act, Point]) -> None:
        """An act in which the control plane may be killed; it leaves one of a few things."""
        act, point = where
        usual = _USUAL.get(act)
        name = self._pick(number, usual)
        if name is None and act != "restore":
            name = self._pick(number, None)
        if name is None:
            return
        if act in ("snapshot", "restore"):
            # Then one with a memory.
            self.snapshot(name)
        self.subject.killed_at(point, act, name)
        found = self.subject.settled(name)
        known = self.known[name]
        if act == "wake" and known.status is not _S.SLEEPING:
            # None slept: it was the start of another one.
            act = "start"
        assert found in LEAVES[act] | {known.status}
        if act == "snapshot" and ANOTHER in self.subject.snapshots():
            # Whole or not there.
            self.subject.remove_snapshot(ANOTHER)
        if act == "restore" and found is _S.SLEEPING and known.kept is not None:
            known.file = known.kept[0]
        if found is None:
            self._forget(name)
        else:
            known.status = found

    @invariant()
    def all_agree(self) -> None:
        found = {name: self.subject.settled(name) for name in self.known}
        assert found == {name: known.status for name, known in self.known.items()}
        assert self.subject.snapshots() == {
            kept_as(name) for name, known in self.known.items() if known.kept is not None
        }
        self.subject.check(self.known)

    def _call(self, call: Call, name: str) -> None:
        answer = self.subject.call(call, name)
        known = self.known.get(name)
        if known is None:
            assert _is(answer, NotFoundError)
        elif known.status in _FOR[call]:
            assert answer is _LEADS_TO[call]
            known.status = answer
        else:
            assert _is(answer, InvalidStateError)

    def _forget(self, name: str) -> None:
        """The machine is no more; its snapshot goes too."""
        if self.known.pop(name).kept is not None:
            self.subject.remove_snapshot(kept_as(name))

    def _pick(self, number: int, status: Status | None) -> str | None:
        """One of the machines that have the status (None: any); None when there is none."""
        names = sorted(name for name, known in self.known.items() if status in (None, known.status))
        return names[number % len(names)] if names else None

    def _does_not_run(self, name: str, answer: Refused) -> bool:
        """Whether a command was refused rightly."""
        if name not in self.known:
            return _is(answer, NotFoundError)
        return self.known[name].status is not _S.RUNNING and _is(answer, InvalidStateError)


def _is(answer: object, error: type[HyperfleetError]) -> bool:
    return isinstance(answer, Refused) and answer.code == error.code
