"""How the host comes back to an agent that broke the protocol."""

from __future__ import annotations

import asyncio
import socket
from asyncio import StreamReader, StreamWriter
from typing import cast

import pytest

from hyperfleet.fleet import link
from hyperfleet.vmm.driver import CpuTime, Process
from hyperfleet.wire import guest as wire
from hyperfleet.wire import slip


class Liar:
    """A process whose agent welcomes each host, then answers what nobody asked."""

    pid = 1

    def __init__(self, *, protocol: int = 1) -> None:
        self.opened = 0
        self._protocol = protocol
        self._serving: list[asyncio.Task[None]] = []

    def cpu_time(self) -> CpuTime | None:
        raise NotImplementedError

    async def channel(self) -> tuple[StreamReader, StreamWriter]:
        self.opened += 1
        ours, its = socket.socketpair()
        self._serving.append(
            asyncio.create_task(self._serve(*await asyncio.open_connection(sock=its)))
        )
        return await asyncio.open_connection(sock=ours)

    async def end(self) -> None:
        await asyncio.gather(*self._serving)

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        for payload in slip.Reader().feed(await reader.read(4096)):
            assert isinstance(payload, bytes)
            hello = wire.decode_to_guest(payload)
            assert isinstance(hello, wire.Hello)
            welcome = wire.Welcome(
                nonce=hello.nonce, protocol=self._protocol, agent="liar", boot_id="1"
            )
            for message in (welcome, wire.Done(id=77)):
                writer.write(slip.frame(wire.encode(message)))
        await reader.read()
        writer.close()


async def test_each_lie_is_followed_by_a_longer_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[tuple[int, float]] = []
    enough = asyncio.Event()
    liar = Liar()

    async def rest(pause: float) -> float:
        waits.append((liar.opened, pause))
        if len(waits) == 4:
            enough.set()
            await asyncio.Event().wait()
        return pause * 2

    monkeypatch.setattr(link, "_rest", rest)
    kept = link.AgentLink(cast("Process", liar))
    kept.keep()
    async with asyncio.timeout(30):
        await enough.wait()
    await kept.close()
    await liar.end()
    assert waits == [(1, 0.05), (2, 0.1), (3, 0.2), (4, 0.4)]


@pytest.mark.parametrize(
    ("protocol", "lie"), [(1, "an answer to a call that was never made"), (2, "version 2, which")]
)
async def test_each_lie_is_told_to_who_asked_for_it(protocol: int, lie: str) -> None:
    liar = Liar(protocol=protocol)
    told: asyncio.Queue[str] = asyncio.Queue()
    kept = link.AgentLink(cast("Process", liar))
    kept.on_fault(told.put_nowait)
    kept.keep()
    async with asyncio.timeout(30):
        assert lie in await told.get()
    await kept.close()
    await liar.end()
