"""An upgrade or other settings: the next data plane takes over, and no request is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from hyperfleet.errors import SettingsError
from hyperfleet.lifecycle import Status
from hyperfleet.proxy.data_plane import DataPlane
from hyperfleet.proxy.link import Link
from hyperfleet.proxy.process import DataPlaneConfig
from hyperfleet.wire import WireError
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

# A supervision that lets its data plane serve on leaves a child behind, as its own end would.
pytestmark = pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")

REQUEST = f"GET /proxy/{WEB}/80/ HTTP/1.1\r\nHost: h\r\n\r\n".encode()
SLOW = "s" * 12


async def begun(config: DataPlaneConfig, upstream: str) -> tuple[DataPlane, int]:
    """A supervision of a data plane with one machine, and that one's process."""
    plane = DataPlane(config, nobody_asks)
    await plane.publish(a_machine(upstream=upstream))
    await plane.open()
    assert plane.pid is not None
    return plane, plane.pid


def other(config: DataPlaneConfig, number: int) -> DataPlaneConfig:
    """The same with a setting that changes nothing here."""
    arguments = (*config.arguments, ("pool", str(100 + number)))
    return msgspec.structs.replace(config, arguments=arguments)


@asynccontextmanager
async def dripping() -> AsyncIterator[tuple[str, asyncio.Queue[bytes]]]:
    """A server that answers with what is put into a queue; b"" ends it. Its address."""
    drops: asyncio.Queue[bytes] = asyncio.Queue()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while drop := await drops.get():
            writer.write(drop)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        yield f"{host}:{port}", drops


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """One request that must be answered; whether the connection is kept."""
    writer.write(REQUEST)
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), head
    assert await reader.readexactly(2) == b"ok"
    return b"Connection: close" not in head


async def load(port: int, *, keep: bool, over: asyncio.Event) -> int:
    """Requests until it is over, on kept connections or each on its own; how many."""
    count = 0
    while not over.is_set():
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while await ask(reader, writer) and keep and not over.is_set():
            count += 1
        count += 1
        writer.close()
    return count


async def test_other_settings_under_load_lose_nothing(
    config: DataPlaneConfig, upstream: str, record_property: Callable[[str, object], None]
) -> None:
    async with dripping() as (slow, drops):
        machines = [a_machine(upstream=upstream), a_machine(SLOW, upstream=slow)]
        plane = DataPlane(config, nobody_asks)
        for machine in machines:
            await plane.publish(machine)
        await plane.open()
        long_reader, long_writer = await asyncio.open_connection("127.0.0.1", config.port)
        long_writer.write(REQUEST.replace(WEB.encode(), SLOW.encode()))
        await long_reader.readuntil(b"\r\n\r\n")
        over = asyncio.Event()
        clients = [
            asyncio.create_task(load(config.port, keep=keep, over=over))
            for keep in (True, False) * 3
        ]
        pids = [plane.pid]
        async with asyncio.timeout(PATIENCE):
            for number in range(5):
                await plane.close(keep_running=True)
                plane = DataPlane(other(config, number), nobody_asks)
                for machine in machines:
                    await plane.publish(machine)
                await plane.open()
                pids.append(plane.pid)
                await drops.put(b"%d" % number)
                assert await long_reader.readuntil(b"%d\r\n" % number)
        over.set()
        total = sum(await asyncio.gather(*clients))
        assert total > 100
        assert len(set(pids)) == len(pids)
        await drops.put(b"")
        assert (await long_reader.readuntil(b"0\r\n\r\n")).endswith(b"0\r\n\r\n")
        long_writer.close()
        record_property("requests of which none failed", total)
        await plane.close(keep_running=False)
        await until(lambda: holders(config) == [])


async def test_a_stop_reaches_what_the_old_one_serves_still(
    config: DataPlaneConfig, upstream: str
) -> None:
    first, old = await begun(config, upstream)
    reader, writer = await asyncio.open_connection("127.0.0.1", config.port)
    assert await ask(reader, writer)
    await first.close(keep_running=True)
    async with opened(other(config, 1), a_machine(upstream=upstream)) as second:
        assert second.pid != old
        await second.publish(a_machine(status=Status.STOPPED))
        writer.write(REQUEST)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 ")
        assert b"Connection: close" in head
        assert await page(config) == STOPPED
    writer.close()


async def test_settings_that_are_refused_leave_the_old_one(
    config: DataPlaneConfig, upstream: str
) -> None:
    first, old = await begun(config, upstream)
    await first.close(keep_running=True)
    wrong = msgspec.structs.replace(config, arguments=(("prefix", "no slash"),))
    with pytest.raises(SettingsError, match="prefix"):
        await DataPlane(wrong, nobody_asks).open()
    assert await page(config) == OK
    async with opened(config, a_machine(upstream=upstream)) as second:
        assert second.pid == old


async def test_one_of_another_protocol_is_taken_over_from(
    config: DataPlaneConfig, upstream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, old = await begun(config, upstream)
    reader, writer = await asyncio.open_connection("127.0.0.1", config.port)
    assert await ask(reader, writer)
    await first.close(keep_running=True)
    connect = Link.connect

    async def refused(*arguments: Any, **named: Any) -> Link:
        link = await connect(*arguments, **named)
        if link.hello.pid == old:
            await link.close()
            raise WireError("protocol 0 is not spoken here")
        return link

    monkeypatch.setattr(Link, "connect", refused)
    async with opened(config, a_machine(upstream=upstream)) as second:
        assert second.pid != old
        assert await page(config) == OK
        # The old one has not been killed: it answers, and says goodbye.
        assert not await ask(reader, writer)
        await until(lambda: not alive(old))
    writer.close()
