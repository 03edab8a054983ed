"""The processes of a fake guest that have a name: they outlive the calls attached to them."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

from hyperfleet.vmm.fake_calls import Call, Message, refused
from hyperfleet.vmm.fake_programs import System
from hyperfleet.wire import guest

# Bytes of output that are held of one; what came first is dropped.
_LIMIT = 1024 * 1024

KeptMessage = guest.Keep | guest.Attach | guest.Detach | guest.EndTaken | guest.Kept | guest.Forget


class KeptCalls:
    """All of them; answers through `say`."""

    def __init__(self, system: System, say: Callable[[guest.FromGuest], None]) -> None:
        self._system = system
        self._say = say
        # Those too that were killed and whose end is not heard yet: they have no name any more.
        self._all: list[_Kept] = []

    def take(self, message: KeptMessage) -> None:
        """One of the host's messages."""
        match message:
            case guest.Keep():
                self._keep(message)
            case guest.Attach(id=call, name=name, output_window=window):
                if (kept := self._find(call, name)) is not None:
                    self._attach(kept, call, window)
            case guest.Detach(id=call) | guest.EndTaken(id=call):
                self._leave(call, heard=isinstance(message, guest.EndTaken))
            case guest.Kept(id=call):
                told = tuple(kept.told() for kept in self._named)
                self._say(guest.KeptProcesses(id=call, processes=told))
            case guest.Forget(id=call, name=name):
                if (kept := self._find(call, name)) is not None:
                    kept.name = None
                    kept.call.end(signal=signal.SIGKILL)
                    self._forget_all_left()
                    self._say(guest.Done(id=call))

    def pass_on(self, message: Message) -> bool:
        """One of the messages for a call; whether a process that has a name is meant."""
        kept = self._attached(message.id)
        if kept is None:
            return False
        if isinstance(message, guest.OutputTaken):
            kept.taken(message.bytes)
            kept.tell()
        else:
            kept.call.take(message, self._say)
        return True

    def detach(self) -> None:
        """The session is over; they run on."""
        for kept in self._all:
            kept.leave()
        self._forget_all_left()

    def drop(self) -> None:
        """The power is off."""
        for kept in self._all:
            kept.call.drop()
        self._all.clear()

    def _keep(self, asked: guest.Keep) -> None:
        named = self._named
        over = [kept for kept in named if kept.is_over]
        if any(kept.name == asked.name for kept in named):
            why = f"a process {asked.name} is there already"
            self._say(guest.Refused(id=asked.id, code="name_taken", message=why))
        elif len(named) >= guest.MAX_KEPT and not over:
            why = f"{guest.MAX_KEPT} processes are kept already"
            self._say(guest.Refused(id=asked.id, code="busy", message=why))
        elif (refusal := refused(asked.id, asked.exec, self._system)) is not None:
            self._say(refusal)
        else:
            if len(named) >= guest.MAX_KEPT:
                self._all.remove(over[0])
            kept = _Kept(asked, self._system, self._say)
            self._all.append(kept)
            self._attach(kept, asked.id, asked.output_window)
            kept.call.begin()

    def _attach(self, kept: _Kept, call: int, window: int) -> None:
        if kept.attached is not None and not kept.end_told:
            why = f"another client has attached to {kept.name}"
            self._say(guest.Refused(id=kept.attached, code="replaced", message=why))
        kept.attach(call, window)

    def _leave(self, call: int, *, heard: bool) -> None:
        kept = self._attached(call)
        if kept is None:
            return
        if not kept.end_told:
            self._say(guest.Done(id=call))
        elif heard:
            kept.name = None
        kept.leave()
        self._forget_all_left()

    def _forget_all_left(self) -> None:
        self._all = [
            kept for kept in self._all if kept.name is not None or kept.attached is not None
        ]

    @property
    def _named(self) -> list[_Kept]:
        return [kept for kept in self._all if kept.name is not None]

    def _find(self, call: int, name: str) -> _Kept | None:
        kept = next((kept for kept in self._all if kept.name == name), None)
        if kept is None:
            why = f"no process {name} is there"
            self._say(guest.Refused(id=call, code="no_process", message=why))
        return kept

    def _attached(self, call: int) -> _Kept | None:
        return next((kept for kept in self._all if kept.attached == call), None)


class _Kept:
    """One of them. Its output is there when it has ended."""

    def __init__(
        self, asked: guest.Keep, system: System, say: Callable[[guest.FromGuest], None]
    ) -> None:
        self.name: str | None = asked.name
        self.call = Call(asked.id, asked.exec, system, self._finish)
        self.attached: int | None = None
        self.end_told = False
        self._asked = asked
        self._say = say
        self._since_ns = time.time_ns()
        self._ending: guest.Exited | None = None
        # What nobody has taken: pieces of one stream each. How much of it was told, came before it,
        # and was dropped right before it; how much may be told.
        self._untaken: list[tuple[type[guest.Stdout | guest.Stderr], bytes]] = []
        self._told = 0
        self._offset = 0
        self._dropped = 0
        self._window = 0

    @property
    def is_over(self) -> bool:
        return self._ending is not None and self.attached is None

    def attach(self, call: int, window: int) -> None:
        self.attached, self._window = call, window
        self._told, self.end_told = 0, False
        self._say(
            guest.Attached(
                id=call,
                offset=self._offset,
                dropped=self._dropped,
                input=0,
                stdin=self.call.takes_input,
                terminal=self._asked.exec.terminal is not None,
            )
        )
        self.tell()

    def leave(self) -> None:
        self.attached = None
        self._trim()

    def taken(self, count: int) -> None:
        count = min(count, self._told)
        self._told -= count
        self._remove(count)
        if count:
            self._dropped = 0

    def tell(self) -> None:
        """What the host will hear now, and the ending when that is all."""
        if self.attached is None or self._ending is None or self.end_told:
            return
        at = 0
        for kind, data in self._untaken:
            piece = data[max(0, self._told - at) :][: self._window - self._told]
            at += len(data)
            if piece:
                self._told += len(piece)
                self._say(kind(id=self.attached, data=piece))
        if self._told == at:
            self.end_told = True
            end = self._ending
            self._say(
                guest.Exited(
                    id=self.attached,
                    code=end.code,
                    signal=end.signal,
                    timed_out=end.timed_out,
                    truncated=end.truncated,
                )
            )

    def told(self) -> guest.KeptProcessMessage:
        return guest.KeptProcessMessage(
            name=self._asked.name,
            argv=tuple(word[:100] for word in self._asked.exec.argv[:10]),
            since_ns=self._since_ns,
            attached=self.attached is not None,
            terminal=self._asked.exec.terminal is not None,
            code=None if self._ending is None else self._ending.code,
            signal=None if self._ending is None else self._ending.signal,
            untaken=sum(len(data) for _, data in self._untaken),
            dropped=self._dropped,
        )

    def _finish(self, call: Call, ending: guest.Exited) -> None:
        self._ending = ending
        self._untaken = [
            (kind, data[start : start + guest.MAX_CHUNK])
            for kind, data in call.untold.items()
            for start in range(0, len(data), guest.MAX_CHUNK)
        ]
        if self.attached is None:
            self._trim()
        self.tell()

    def _trim(self) -> None:
        excess = sum(len(data) for _, data in self._untaken) - _LIMIT
        if excess > 0:
            self._remove(excess)
            self._dropped += excess

    def _remove(self, count: int) -> None:
        self._offset += count
        while count:
            kind, data = self._untaken[0]
            self._untaken[:1] = [(kind, data[count:])] if len(data) > count else []
            count -= min(count, len(data))
