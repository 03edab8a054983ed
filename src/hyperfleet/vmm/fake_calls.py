"""The exec calls of a fake guest that are under way: output, time limits, endings."""

from __future__ import annotations

import asyncio
import posixpath
from collections.abc import Callable

from hyperfleet.vmm.fake_programs import Killed, Programs, Run, System
from hyperfleet.wire import guest

# Of every process, before its own variables.
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "USER": "root",
    "LOGNAME": "root",
    "SHELL": "/bin/sh",
    "LANG": "C.UTF-8",
}
_KILL = 9
_NO_BOUND = 2**64

# What the host says of processes.
Message = guest.Exec | guest.Stdin | guest.OutputTaken | guest.Resize | guest.Kill


class Calls:
    """Runs programs for one session at a time; answers through `say`."""

    def __init__(self, system: System, say: Callable[[guest.FromGuest], None]) -> None:
        self._system = system
        self._say = say
        self._running: dict[int, Call] = {}

    def take(self, message: Message) -> None:
        """One of the host's messages."""
        if isinstance(message, guest.Exec):
            self._begin(message.id, message.exec)
            return
        call = self._running.get(message.id)
        if call is None:
            return
        if isinstance(message, guest.OutputTaken):
            call.credit += message.bytes
            self._tell(call)
        else:
            call.take(message, self._say)

    def forget(self) -> None:
        """A new session, or the end: nothing of the calls so far is told any more."""
        for call in list(self._running.values()):
            call.drop()
        self._running.clear()

    def _begin(self, call_id: int, asked: guest.ExecCall) -> None:
        if call_id in self._running:
            self._say(guest.Refused(id=call_id, code="invalid", message="a free id is needed"))
        elif (refusal := refused(call_id, asked, self._system)) is not None:
            self._say(refusal)
        else:
            call = Call(call_id, asked, self._system, self._finish)
            self._running[call_id] = call
            call.begin()

    def _finish(self, call: Call, ending: guest.Exited) -> None:
        call.ending = ending
        self._tell(call)

    def _tell(self, call: Call) -> None:
        """What the host will hear now of a program that has ended; the ending when that is all."""
        if call.ending is None:
            return
        for kind in (guest.Stdout, guest.Stderr):
            while rest := call.untold[kind]:
                size = min(len(rest), guest.MAX_CHUNK, call.credit)
                if size == 0:
                    return
                call.untold[kind] = rest[size:]
                call.credit -= size
                self._say(kind(id=call.id, data=rest[:size]))
        self._running.pop(call.id, None)
        self._say(call.ending)


def refused(call_id: int, asked: guest.ExecCall, system: System) -> guest.Refused | None:
    """Why a process can't be started, if it can't."""
    program = asked.argv[0] if asked.argv else ""
    if not program:
        return guest.Refused(id=call_id, code="invalid", message="argv names no program")
    if not Programs(system, {}, "/", b"").knows(program):
        why = f"{posixpath.basename(program)}: not found"
        return guest.Refused(id=call_id, code="not_found", message=why)
    return None


class Call:
    """One process. It begins when its standard input is whole."""

    def __init__(
        self,
        call_id: int,
        asked: guest.ExecCall,
        system: System,
        finish: Callable[[Call, guest.Exited], None],
    ) -> None:
        self.id = call_id
        # Of a program that has ended: what the host has not heard, and how much it will hear now.
        self.untold: dict[type[guest.Stdout | guest.Stderr], bytes]
        self.untold = {guest.Stdout: b"", guest.Stderr: b""}
        self.credit = _NO_BOUND if asked.output_window is None else asked.output_window
        self.ending: guest.Exited | None = None
        self._asked = asked
        self._system = system
        self._finish = finish
        self._loop = asyncio.get_running_loop()
        self._input = bytearray()
        self._programs: Programs | None = None
        self._run: Run | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._limit: asyncio.TimerHandle | None = None
        if asked.timeout_ms:
            self._limit = self._loop.call_later(asked.timeout_ms / 1000, self._time_out)

    def begin(self) -> None:
        if not self._asked.stdin:
            self.stdin(b"", eof=True)

    @property
    def takes_input(self) -> bool:
        """Whether more may come."""
        return self._asked.stdin and self._run is None and self.ending is None

    def take(self, message: Message, say: Callable[[guest.FromGuest], None]) -> None:
        """A signal, or input, which is told as taken."""
        if isinstance(message, guest.Kill):
            self.end(signal=message.signal)
        elif isinstance(message, guest.Stdin):
            if message.data:
                say(guest.StdinTaken(id=message.id, bytes=len(message.data)))
            self.stdin(message.data, eof=message.eof)

    def stdin(self, data: bytes, *, eof: bool) -> None:
        self._input += data
        if eof and self._run is None:
            environment = {**ENVIRONMENT, **dict(self._asked.env)}
            self._programs = Programs(
                self._system, environment, self._asked.cwd or "/", bytes(self._input)
            )
            self._run = self._programs.run(self._asked.argv)
            self._step()

    def end(
        self, *, code: int | None = None, signal: int | None = None, timed_out: bool = False
    ) -> None:
        if self.ending is not None:
            return
        truncated = False
        if self._programs is not None:
            limit = self._asked.output_limit
            streams = (self._programs.stdout, self._programs.stderr)
            truncated = any(len(stream) > limit for stream in streams)
            kept = (bytes(stream[:limit]) for stream in streams)
            self.untold = dict(zip((guest.Stdout, guest.Stderr), kept, strict=True))
        self.drop()
        self._finish(
            self,
            guest.Exited(
                id=self.id, code=code, signal=signal, timed_out=timed_out, truncated=truncated
            ),
        )

    def drop(self) -> None:
        """Ends it without a word."""
        for timer in (self._timer, self._limit):
            if timer is not None:
                timer.cancel()
        if self._run is not None:
            self._run.close()

    def _time_out(self) -> None:
        self.end(signal=_KILL, timed_out=True)

    def _step(self) -> None:
        assert self._run is not None  # noqa: S101 - begun
        try:
            pause = next(self._run)
        except StopIteration as ending:
            self.end(code=ending.value)
        except Killed as killed:
            self.end(signal=killed.number)
        else:
            self._timer = self._loop.call_later(pause, self._step)
