"""The control plane's end of the control socket, against a scripted data plane."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Self

import msgspec
import pytest

from hyperfleet.proxy.interface import Answer
from hyperfleet.proxy.link import Link
from hyperfleet.wire import WireError, control, length

TIMES = control.Histogram(counts=(1, 0), sum_us=10)
HELLO = control.ProxyHello(protocol=control.PROTOCOL, version="0", pid=1, arguments=())


class ScriptedDataPlane:
    """Listens on a control socket, says what a test tells it, keeps what it hears."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.greeting: Any = HELLO
        self.heard: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._server: asyncio.Server | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_unix_server(self._serve, self.path)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.hang_up()
        await self._server.wait_closed()

    def say(self, message: Any) -> None:
        assert self._writer is not None
        self._writer.write(length.frame(msgspec.msgpack.encode(message)))

    def hang_up(self) -> None:
        if self._writer is not None:
            self._writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        if self.greeting is not None:
            self.say(self.greeting)
        while (payload := await length.read(reader)) is not None:
            await self.heard.put(msgspec.msgpack.decode(payload))


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[ScriptedDataPlane]:
    async with ScriptedDataPlane(tmp_path / "control.sock") as scripted:
        yield scripted


async def nobody_asks(machine: str, port: int) -> Answer | None:
    raise AssertionError("no probe was expected")


async def connected(plane: ScriptedDataPlane, probe: Any = nobody_asks) -> Link:
    link = await Link.connect(plane.path, probe, deadline_s=5)
    assert await plane.heard.get() == {"type": "hello", "protocol": control.PROTOCOL}
    return link


async def test_applied_numbers_wake_those_who_wait(plane: ScriptedDataPlane) -> None:
    link = await connected(plane)
    running = asyncio.create_task(link.run(lambda: None))
    waiting = asyncio.create_task(link.wait_applied(7))
    plane.say(control.Applied(number=6))
    plane.say(control.Applied(number=7))
    assert await waiting
    plane.hang_up()
    await running
    late = asyncio.create_task(link.wait_applied(8))
    await link.close()
    assert not await late


async def test_resync_asks_for_the_table(plane: ScriptedDataPlane) -> None:
    link = await connected(plane)
    asked = asyncio.Event()
    running = asyncio.create_task(link.run(asked.set))
    plane.say(control.Resync(have=3))
    await asyncio.wait_for(asked.wait(), 5)
    plane.hang_up()
    await running
    await link.close()


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (Answer(upstream="127.0.0.1:9"), {"outcome": "listening", "upstream": "127.0.0.1:9"}),
        (Answer(upstream=None), {"outcome": "closed"}),
        (None, {"outcome": "unknown"}),
        (ValueError("the agent lied"), {"outcome": "unknown"}),
    ],
)
async def test_a_probe_gets_the_agents_answer(
    plane: ScriptedDataPlane, answer: Answer | Exception | None, outcome: dict[str, str]
) -> None:
    asked: list[tuple[str, int]] = []

    async def probe(machine: str, port: int) -> Answer | None:
        asked.append((machine, port))
        if isinstance(answer, Exception):
            raise answer
        return answer

    link = await connected(plane, probe)
    running = asyncio.create_task(link.run(lambda: None))
    plane.say(control.Probe(id=5, machine="m", port=80))
    assert await plane.heard.get() == {"type": "probe_result", "id": 5, "outcome": outcome}
    assert asked == [("m", 80)]
    plane.hang_up()
    await running
    await link.close()


async def test_counters_are_asked_and_answered(plane: ScriptedDataPlane) -> None:
    link = await connected(plane)
    running = asyncio.create_task(link.run(lambda: None))
    counters = control.Counters(
        connections=1,
        tunnels=0,
        accepted=2,
        requests=3,
        responses=(0, 3, 0, 0, 0),
        errors=(("not_found", 1),),
        bytes_in=4,
        bytes_out=5,
        upstream_connects=1,
        upstream_reuses=2,
        in_flight=0,
        bounds_us=(1000,),
        duration=TIMES,
        first_byte=TIMES,
    )
    asking = asyncio.create_task(link.counters())
    assert (await plane.heard.get())["type"] == "counters_request"
    plane.say(control.CountersMessage(counters=counters))
    assert await asking == counters
    unanswered = asyncio.create_task(link.counters())
    await plane.heard.get()
    plane.hang_up()
    await running
    await link.close()
    with pytest.raises(ConnectionError):
        await unanswered


def port_meters(port: int) -> control.PortMeters:
    return control.PortMeters(
        port=port,
        requests=1,
        responses=(0, 1, 0, 0, 0),
        errors=(),
        bytes_in=1,
        bytes_out=1,
        in_flight=0,
        tunnels=0,
        duration=TIMES,
        first_byte=TIMES,
    )


def meters_of(machine: str, *ports: int) -> control.MachineMeters:
    return control.MachineMeters(
        id=machine, connections=1, in_flight=0, idle_ms=5, ports=tuple(map(port_meters, ports))
    )


async def test_meters_are_asked_for_until_there_are_no_more(plane: ScriptedDataPlane) -> None:
    link = await connected(plane)
    running = asyncio.create_task(link.run(lambda: None))
    asking = asyncio.create_task(link.meters())
    question = await plane.heard.get()
    assert question == {"type": "meters_request", "machine": None, "after": None}
    first = (meters_of("a", 80), meters_of("b", 80, 81))
    plane.say(control.Meters(machines=first, next=("b", 81)))
    assert (await plane.heard.get())["after"] == ["b", 81]
    plane.say(control.Meters(machines=(meters_of("b", 443),), next=None))
    assert await asking == (meters_of("a", 80), meters_of("b", 80, 81, 443))
    confused = asyncio.create_task(link.counters())
    await plane.heard.get()
    plane.say(control.Meters(machines=(), next=None))
    with pytest.raises(WireError, match="another question"):
        await confused
    plane.hang_up()
    await running
    await link.close()


@pytest.mark.parametrize(
    ("greeting", "words"),
    [
        (control.Refused(message="no"), "refused the session: no"),
        (control.Applied(number=1), "did not begin with a hello"),
        (msgspec.structs.replace(HELLO, protocol=99), "protocol 99"),
        ({"type": "surprise"}, "not understood"),
    ],
)
async def test_another_protocol_is_refused_with_its_reason(
    plane: ScriptedDataPlane, greeting: Any, words: str
) -> None:
    plane.greeting = greeting
    with pytest.raises(WireError, match=words):
        await Link.connect(plane.path, nobody_asks, deadline_s=5)


async def test_a_message_that_is_not_understood_ends_the_session(plane: ScriptedDataPlane) -> None:
    link = await connected(plane)
    running = asyncio.create_task(link.run(lambda: None))
    plane.say({"type": "surprise"})
    with pytest.raises(WireError, match="not understood"):
        await running
    await link.close()


async def test_a_silent_data_plane_costs_the_deadline_only(plane: ScriptedDataPlane) -> None:
    plane.greeting = None
    with pytest.raises(TimeoutError):
        await Link.connect(plane.path, nobody_asks, deadline_s=0.05)
