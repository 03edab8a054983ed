"""One session with the data plane over its control socket."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec
import structlog

from hyperfleet import unix_sockets
from hyperfleet.proxy.interface import Probe
from hyperfleet.wire import WireError, control, length

_log = structlog.get_logger(__name__)

# Probes answered at once; the data plane asks once a port, so this bounds a storm over many.
_PROBES_AT_ONCE = 64
# Seconds after which the data plane has stopped waiting for a probe's answer.
_PROBE_LIMIT = 1.0


class Link:
    """A connection whose hellos have been shaken. Made by `connect`, ended by `close`.

    `run` must be running for anything but `hello` to work.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        hello: control.ProxyHello,
        probe: Probe,
    ) -> None:
        self.hello = hello
        self.applied = -1
        self._reader = reader
        self._writer = writer
        self._probe = probe
        self._progress = asyncio.Condition()
        self._ended = False
        self._probe_slots = asyncio.Semaphore(_PROBES_AT_ONCE)
        self._probes: set[asyncio.Task[None]] = set()
        # Questions are answered in the order in which they were asked.
        self._asked: deque[asyncio.Future[control.CountersMessage | control.Meters]] = deque()

    @classmethod
    async def connect(cls, path: Path, probe: Probe, *, deadline_s: float) -> Link:
        """Connects and shakes hands.

        Args:
            path: the data plane's control socket.
            probe: answers the data plane's question where a port listens.
            deadline_s: for all of it, seconds.

        Raises:
            OSError: nobody listens there.
            TimeoutError: no hello in time.
            WireError: whoever listens does not speak this protocol.
        """
        async with asyncio.timeout(deadline_s):
            connection = await unix_sockets.connect(path)
            reader, writer = await asyncio.open_unix_connection(sock=connection)
            try:
                hello = control.ControlHello(protocol=control.PROTOCOL)
                writer.write(length.frame(control.encode(hello)))
                await writer.drain()
                answer = _checked_hello(await length.read(reader))
            except ConnectionError as error:
                # Somebody listens, hence no OSError.
                writer.close()
                raise WireError(f"the connection broke before a hello: {error}") from error
            except BaseException:
                writer.close()
                raise
        return cls(reader, writer, answer, probe)

    async def run(self, on_resync: Callable[[], None]) -> None:
        """Reads until the connection ends; `on_resync` is called when a whole table is asked for.

        Raises:
            WireError: the data plane said something that is not understood, or refused what we
                said.
        """
        try:
            while (payload := await length.read(self._reader)) is not None:
                message = control.decode_from_proxy(payload)
                if isinstance(message, control.Resync):
                    on_resync()
                else:
                    await self._take(message)
        except ConnectionError:
            return

    async def send(self, messages: Iterable[control.ToProxy]) -> None:
        """Writes messages, in order.

        Raises:
            ConnectionError: the connection has ended.
        """
        for message in messages:
            if self._ended:
                raise ConnectionResetError("the data plane's connection has ended")
            self._writer.write(length.frame(control.encode(message)))
            await self._writer.drain()

    async def wait_applied(self, number: int) -> bool:
        """Waits until the data plane decides by step `number`; False if the session ends first."""
        async with self._progress:
            await self._progress.wait_for(lambda: self._ended or self.applied >= number)
        return self.applied >= number

    async def counters(self) -> control.Counters:
        """The data plane's counters now.

        Raises:
            ConnectionError: the connection has ended.
            WireError: the data plane answered another question.
        """
        answer = await self._ask(control.CountersRequest())
        if not isinstance(answer, control.CountersMessage):
            raise WireError("the data plane answered another question")
        return answer.counters

    async def meters(self, machine: str | None = None) -> tuple[control.MachineMeters, ...]:
        """What was measured for each machine that was ever asked for something, or for one.

        Raises:
            ConnectionError: the connection has ended.
            WireError: the data plane answered another question.
        """
        found: dict[str, control.MachineMeters] = {}
        after: tuple[str, int] | None = None
        while True:
            answer = await self._ask(control.MetersRequest(machine=machine, after=after))
            if not isinstance(answer, control.Meters):
                raise WireError("the data plane answered another question")
            for part in answer.machines:
                before = found[part.id].ports if part.id in found else ()
                found[part.id] = msgspec.structs.replace(part, ports=(*before, *part.ports))
            after = answer.next
            if after is None:
                return tuple(found.values())

    async def close(self) -> None:
        """Ends the session and everything that waits on it. May be called again."""
        if self._ended:
            return
        self._ended = True
        for task in self._probes:
            task.cancel()
        for answer in self._asked:
            if not answer.done():
                answer.set_exception(ConnectionResetError("the data plane's connection has ended"))
        self._writer.close()
        async with self._progress:
            self._progress.notify_all()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()

    async def _take(self, message: control.FromProxy) -> None:
        match message:
            case control.Applied(number=number):
                async with self._progress:
                    self.applied = max(self.applied, number)
                    self._progress.notify_all()
            case control.Probe():
                task = asyncio.create_task(self._answer(message))
                self._probes.add(task)
                task.add_done_callback(self._probes.discard)
            case control.CountersMessage() | control.Meters():
                if self._asked:
                    waiting = self._asked.popleft()
                    if not waiting.done():
                        waiting.set_result(message)
            case control.Refused(message=reason):
                raise WireError(f"the data plane refused a message: {reason}")
            case _:
                raise WireError("the data plane said hello twice")

    async def _ask(
        self, question: control.CountersRequest | control.MetersRequest
    ) -> control.CountersMessage | control.Meters:
        answer: asyncio.Future[control.CountersMessage | control.Meters] = (
            asyncio.get_running_loop().create_future()
        )
        self._asked.append(answer)
        await self.send([question])
        return await answer

    async def _answer(self, question: control.Probe) -> None:
        outcome: control.ProbeOutcome = control.Unknown()
        try:
            # The wait for a slot counts too: an answer that is late is no answer.
            async with asyncio.timeout(_PROBE_LIMIT), self._probe_slots:
                answer = await self._probe(question.machine, question.port)
        except TimeoutError:
            _log.warning("probe_slow", machine=question.machine, port=question.port)
        except Exception:  # noqa: BLE001 - one bad answer must not end the session
            _log.exception("probe_failed", machine=question.machine, port=question.port)
        else:
            if answer is not None:
                outcome = (
                    control.Closed()
                    if answer.upstream is None
                    else control.Listening(upstream=answer.upstream)
                )
        with contextlib.suppress(ConnectionError):
            await self.send([control.ProbeResult(id=question.id, outcome=outcome)])


def _checked_hello(payload: bytes | None) -> control.ProxyHello:
    if payload is None:
        raise WireError("the data plane closed the connection without a hello")
    answer = control.decode_from_proxy(payload)
    if isinstance(answer, control.Refused):
        raise WireError(f"the data plane refused the session: {answer.message}")
    if not isinstance(answer, control.ProxyHello):
        raise WireError("the data plane did not begin with a hello")
    if answer.protocol != control.PROTOCOL:
        raise WireError(
            f"the data plane speaks protocol {answer.protocol},"
            f" this control plane {control.PROTOCOL}"
        )
    return answer
