"""The exec calls of a fake guest that are under way: output, time limits, endings."""

from __future__ import annotations

import asyncio
import posixpath
from collections.abc import Callable

from hyperfleet.vmm.fake_programs import Killed, Programs, Run, System
from hyperfleet.wire import guest

_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "USER": "root",
    "LOGNAME": "root",
    "SHELL": "/bin/sh",
    "LANG": "C.UTF-8",
}
_KILL = 9


class Calls:
    """Runs programs for one session at a time; answers through `say`."""

    def __init__(self, system: System, say: Callable[[guest.FromGuest], None]) -> None:
        self._system = system
        self._say = say
        self._running: dict[int, _Call] = {}

    def take(self, message: guest.Exec | guest.Stdin | guest.Kill) -> None:
        """One of the host's messages."""
        if isinstance(message, guest.Exec):
            self._begin(message.id, message.exec)
            return
        call = self._running.get(message.id)
        if call is None:
            return
        if isinstance(message, guest.Kill):
            call.end(signal=message.signal)
        else:
            self._say(guest.StdinTaken(id=message.id, bytes=len(message.data)))
            call.stdin(message.data, eof=message.eof)

    def forget(self) -> None:
        """A new session, or the end: nothing of the calls so far is told any more."""
        for call in list(self._running.values()):
            call.drop()
        self._running.clear()

    def _begin(self, call_id: int, asked: guest.ExecCall) -> None:
        program = asked.argv[0] if asked.argv else ""
        programs = Programs(self._system, {}, "/", b"")
        if call_id in self._running or not program:
            self._say(guest.Refused(id=call_id, code="invalid", message="a free id, and a program"))
        elif not programs.knows(program):
            why = f"{posixpath.basename(program)}: not found"
            self._say(guest.Refused(id=call_id, code="not_found", message=why))
        else:
            call = _Call(call_id, asked, self._system, self._finish)
            self._running[call_id] = call
            call.begin()

    def _finish(self, call: _Call, ending: guest.Exited) -> None:
        self._running.pop(call.id, None)
        for data, kind in ((call.stdout, guest.Stdout), (call.stderr, guest.Stderr)):
            for at in range(0, len(data), guest.MAX_CHUNK):
                self._say(kind(id=call.id, data=bytes(data[at : at + guest.MAX_CHUNK])))
        self._say(ending)


class _Call:
    """One process. It begins when its standard input is whole."""

    def __init__(
        self,
        call_id: int,
        asked: guest.ExecCall,
        system: System,
        finish: Callable[[_Call, guest.Exited], None],
    ) -> None:
        self.id = call_id
        self.stdout = self.stderr = b""
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

    def stdin(self, data: bytes, *, eof: bool) -> None:
        self._input += data
        if eof and self._run is None:
            environment = {**_ENVIRONMENT, **dict(self._asked.env)}
            self._programs = Programs(
                self._system, environment, self._asked.cwd or "/", bytes(self._input)
            )
            self._run = self._programs.run(self._asked.argv)
            self._step()

    def end(
        self, *, code: int | None = None, signal: int | None = None, timed_out: bool = False
    ) -> None:
        truncated = False
        if self._programs is not None:
            limit = self._asked.output_limit
            streams = (self._programs.stdout, self._programs.stderr)
            truncated = any(len(stream) > limit for stream in streams)
            self.stdout, self.stderr = (bytes(stream[:limit]) for stream in streams)
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
