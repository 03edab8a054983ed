"""Ways in follow what is exposed, whatever goes on at the same time."""

from __future__ import annotations

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable
from pathlib import Path

import pytest

from hyperfleet.errors import GuestError
from hyperfleet.fleet.link import AgentLink
from hyperfleet.fleet.looker import Looker, Slots
from hyperfleet.metrics.instruments import Instruments
from hyperfleet.vmm.driver import Beginning, CpuTime, Exit


class SlowProcess:
    """A process without a guest, whose ways are made and taken away one after the other."""

    pid = None
    beginning = Beginning()

    def __init__(self) -> None:
        self.fails = False
        self.asked = asyncio.Event()
        self.may_go = asyncio.Event()
        self.may_go.set()
        self._ways = {80: "127.0.0.1:1080", 81: "127.0.0.1:1081"}
        self._lock = asyncio.Lock()

    def cpu_time(self) -> CpuTime | None:
        raise NotImplementedError

    async def channel(self) -> tuple[StreamReader, StreamWriter]:
        raise GuestError("it has no guest")

    async def forward(self, guest_port: int) -> str:
        async with self._lock:
            return self._ways.setdefault(guest_port, f"127.0.0.1:{1000 + guest_port}")

    async def unforward(self, guest_port: int) -> None:
        async with self._lock:
            self.asked.set()
            await self.may_go.wait()
            if self.fails:
                raise GuestError("its monitor failed")
            self._ways.pop(guest_port, None)

    async def forwards(self) -> dict[int, str]:
        async with self._lock:
            return dict(self._ways)

    async def pause(self) -> None:
        raise NotImplementedError

    async def resume(self) -> bool:
        raise NotImplementedError

    stalled = None

    def when_stalled(self, hears: Callable[[str | None], None]) -> None:
        raise NotImplementedError

    async def snapshot(self, into: Path) -> None:
        raise NotImplementedError

    async def save(self) -> None:
        raise NotImplementedError

    async def kill(self) -> None:
        raise NotImplementedError

    async def wait(self) -> Exit:
        raise NotImplementedError

    def release(self) -> None:
        raise NotImplementedError


async def looker_of(process: SlowProcess) -> Looker:
    return Looker(
        process,
        AgentLink(process),
        exposed=(80, 81),
        known_ways=await process.forwards(),
        interval=60,
        slots=Slots(),
        observer=Instruments(driver="fake", proxy_pid=lambda: None),
        on_sight=lambda _: None,
        on_command=lambda _: None,
    )


async def test_a_way_that_is_needed_again_while_it_goes_is_there_and_goes_the_next_time() -> None:
    process = SlowProcess()
    looker = await looker_of(process)
    await looker.aim((80,))
    process.may_go.clear()
    tidying = asyncio.create_task(looker.tidy())
    await process.asked.wait()
    aiming = asyncio.create_task(looker.aim((81, 80)))
    await asyncio.sleep(0)
    process.may_go.set()
    await tidying
    assert await aiming == await process.forwards()
    await looker.aim((80,))
    await looker.tidy()
    assert list(await process.forwards()) == [80]


async def test_a_way_that_could_not_be_taken_away_goes_the_next_time() -> None:
    process = SlowProcess()
    looker = await looker_of(process)
    await looker.aim((82,))
    process.fails = True
    with pytest.raises(GuestError, match="its monitor failed"):
        await looker.tidy()
    process.fails = False
    await looker.tidy()
    assert list(await process.forwards()) == [82]
