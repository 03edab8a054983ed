"""The supervision against the real data plane: adoption, death, floods, probes, its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time

import httpx
import msgspec
import pytest
from structlog.testing import capture_logs

from hyperfleet.lifecycle import Status
from hyperfleet.proxy.data_plane import DataPlane
from hyperfleet.proxy.interface import Answer
from hyperfleet.proxy.link import Link
from hyperfleet.proxy.process import DataPlaneConfig
from hyperfleet.wire import control
from support.data_plane import (
    OK,
    PATIENCE,
    STOPPED,
    WEB,
    a_machine,
    alive,
    holders,
    nobody_asks,
    opened,
    page,
    until,
)
from support.ports import free_port
from support.table import printed

# A supervision that lets its data plane serve on leaves a child behind, as its own end would.
pytestmark = pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")


async def test_it_is_adopted_with_every_connection(config: DataPlaneConfig, upstream: str) -> None:
    machine = a_machine(upstream=upstream)
    first = DataPlane(config, nobody_asks)
    await first.publish(machine)
    await first.open()
    pid = first.pid
    reader, writer = await asyncio.open_connection("127.0.0.1", config.port)
    request = f"GET /proxy/{WEB}/80/ HTTP/1.1\r\nHost: h\r\n\r\n".encode()
    # Half of it before, half after the change of guard.
    writer.write(request[:20])
    await writer.drain()
    await first.close(keep_running=True)
    assert await page(config) == OK
    async with opened(config, machine) as second:
        assert second.pid == pid
        writer.write(request[20:])
        assert (
            await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
        )
        assert await reader.readexactly(2) == b"ok"
        await second.publish(a_machine(status=Status.STOPPED))
        writer.write(request)
        assert (await reader.readline()).startswith(b"HTTP/1.1 503 ")
    writer.close()


async def test_a_machine_that_went_meanwhile_is_gone(
    config: DataPlaneConfig, upstream: str
) -> None:
    first = DataPlane(config, nobody_asks)
    await first.publish(a_machine(upstream=upstream))
    await first.open()
    await first.close(keep_running=True)
    async with opened(config):
        assert (await page(config))[0] == 404


@pytest.mark.parametrize("change", ["arguments", "port"])
async def test_with_other_settings_it_is_replaced(config: DataPlaneConfig, change: str) -> None:
    first = DataPlane(config, nobody_asks)
    await first.open()
    old = first.pid
    assert old is not None
    await first.close(keep_running=True)
    other = (
        msgspec.structs.replace(config, port=free_port())
        if change == "port"
        else msgspec.structs.replace(config, arguments=(("workers", "1"), ("prefix", "/proxy")))
    )
    async with opened(other) as second:
        assert second.pid != old
        await until(lambda: not alive(old))
        assert (await page(other))[0] == 404


async def test_killed_it_is_started_again_with_its_routes(
    config: DataPlaneConfig, upstream: str, request: pytest.FixtureRequest
) -> None:
    many = [a_machine(f"{number:012}", status=Status.STOPPED) for number in range(500)]
    last = many[-1].id
    seconds: list[float] = []
    async with opened(config, a_machine(upstream=upstream), *many) as plane:
        for _ in range(3):
            old = plane.pid
            assert old is not None
            reader, writer = await asyncio.open_connection("127.0.0.1", config.port)
            os.kill(old, signal.SIGKILL)
            began = time.monotonic()
            # The routes are whole when the first and the last of them are as they were.
            for machine, right in ((WEB, OK), (last, STOPPED)):
                while await _page_or_none(config, machine) != right:
                    assert time.monotonic() < began + PATIENCE
            seconds.append(time.monotonic() - began)
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
            writer.close()
            assert plane.pid not in (None, old)
            # What is published now is behind the whole table.
            await plane.publish(a_machine("b" * 12, upstream=upstream))
            assert await page(config) == OK
            await plane.withdraw("b" * 12)
    with printed(request, "data plane killed: seconds until all routes were right again") as rows:
        rows.append("  ".join(f"{each:.2f}" for each in seconds))
    # Each takes about 0.2 s; a host may be busy with other things for one or two of them.
    assert min(seconds) < 1


async def _page_or_none(config: DataPlaneConfig, machine_id: str) -> tuple[int, str] | None:
    """What is answered; None while nobody does."""
    try:
        return await page(config, machine_id)
    except httpx.TransportError:
        return None


async def test_a_burst_arrives_whole_and_in_order(config: DataPlaneConfig, upstream: str) -> None:
    async with opened(config) as plane:
        machines = [f"{number:012}" for number in range(500)]
        await asyncio.gather(
            *(plane.publish(a_machine(name, status=Status.STOPPED)) for name in machines),
            *(plane.publish(a_machine(name, upstream=upstream)) for name in machines),
            # One that changes all the time ends as it was last.
            *(
                plane.publish(a_machine(status=status, upstream=upstream))
                for _ in range(100)
                for status in (Status.RUNNING, Status.STOPPED)
            ),
        )
        assert await page(config) == STOPPED
        for name in machines[::50]:
            assert await page(config, name) == OK
        await asyncio.gather(*(plane.withdraw(name) for name in machines))
        assert (await page(config, machines[0]))[0] == 404
        assert (await page(config, machines[-1]))[0] == 404


async def test_a_number_that_is_missing_is_asked_for(config: DataPlaneConfig) -> None:
    plane = DataPlane(config, nobody_asks)
    await plane.open()
    await plane.close(keep_running=True)
    link = await Link.connect(config.socket, nobody_asks, deadline_s=PATIENCE)
    asked = asyncio.Event()
    running = asyncio.create_task(link.run(asked.set))
    async with asyncio.timeout(PATIENCE):
        await link.send([control.SnapshotBegin(number=1), control.SnapshotEnd(number=1)])
        assert await link.wait_applied(1)
        await link.send([control.Change(number=3, upsert=(), remove=("x",))])
        await asked.wait()
        await link.send([control.SnapshotBegin(number=3), control.SnapshotEnd(number=3)])
        assert await link.wait_applied(3)
    await link.close()
    await running
    async with opened(config):
        assert (await page(config))[0] == 404


async def test_two_control_planes_do_not_end_the_data_plane(
    config: DataPlaneConfig, upstream: str
) -> None:
    machine = a_machine(upstream=upstream)
    async with opened(config, machine) as plane:
        pid = plane.pid
        # The newest wins; the supervision comes back, and its table with it.
        with capture_logs() as logs:
            link = await Link.connect(config.socket, nobody_asks, deadline_s=PATIENCE)
            await link.send([control.SnapshotBegin(number=1), control.SnapshotEnd(number=1)])
            await link.close()
            await until(lambda: "data_plane_lost" in [entry["event"] for entry in logs])
        await until(lambda: plane.pid is not None)
        async with asyncio.timeout(PATIENCE):
            while await page(config) != OK:
                await plane.publish(machine)
        assert plane.pid == pid


async def test_a_probe_goes_to_the_agent_and_its_word_counts(
    config: DataPlaneConfig, upstream: str
) -> None:
    answers: dict[str, Answer | Exception | None] = {
        "listens": Answer(upstream=upstream),
        "closed": Answer(upstream=None),
        "unknown": None,
        "broken": RuntimeError("the agent is confused"),
    }
    asked: list[tuple[str, int]] = []

    async def probe(machine: str, port: int) -> Answer | None:
        asked.append((machine, port))
        answer = answers[machine.rstrip("0")]
        if isinstance(answer, Exception):
            raise answer
        return answer

    ids = {name: name.ljust(12, "0") for name in answers}
    machines = [a_machine(id_, listening=False) for id_ in ids.values()]
    async with opened(config, *machines, probe=probe):
        assert await page(config, ids["listens"]) == OK
        for name in ("closed", "unknown", "broken"):
            status, text = await page(config, ids[name])
            assert (status, text) == (502, '{"error":"Failed to connect to upstream"}'), name
    assert asked == [(ids[name], 80) for name in answers]


async def test_probes_that_hang_do_not_hang_the_link(
    config: DataPlaneConfig, upstream: str
) -> None:
    stuck = asyncio.Event()

    async def probe(machine: str, port: int) -> Answer | None:
        if machine != WEB:
            await stuck.wait()
        return Answer(upstream=upstream)

    # More than are answered at once.
    hanging = [a_machine(f"{number:012}", listening=False) for number in range(100)]
    async with opened(config, a_machine(listening=False), *hanging, probe=probe) as plane:
        waiting = [asyncio.create_task(page(config, machine.id)) for machine in hanging]
        assert await plane.report(machines=False) is not None
        for task in waiting:
            assert (await task)[0] == 502
        assert await page(config) == OK


async def test_closed_it_is_gone_or_serves_on(config: DataPlaneConfig, upstream: str) -> None:
    plane = DataPlane(config, nobody_asks)
    await plane.publish(a_machine(upstream=upstream))
    await plane.open()
    pid = plane.pid
    assert pid is not None
    await plane.close(keep_running=True)
    assert alive(pid)
    assert await page(config) == OK
    async with opened(config) as again:
        assert again.pid == pid
    assert not alive(pid)
    assert not config.socket.exists()
    with socket.socket() as trial:
        assert trial.connect_ex(("127.0.0.1", config.port)) != 0


async def test_closed_while_it_is_away_nothing_is_left(config: DataPlaneConfig) -> None:
    for turns in range(0, 50, 10):
        plane = DataPlane(config, nobody_asks)
        await plane.open()
        pid = plane.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await until(lambda plane=plane, pid=pid: plane.pid != pid)  # type: ignore[misc]
        # Somewhere between noticing the death and shaking the new one's hand.
        for _ in range(turns):
            await asyncio.sleep(0)
        await plane.close(keep_running=False)
        assert holders(config) == []
