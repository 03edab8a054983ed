"""Real guests. Each module has one machine of each disk, booted once and shared by its tests."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from support.bench import Bench, Guest, qemu_driver
from support.images import FILES


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def machines() -> AsyncIterator[Bench]:
    with tempfile.TemporaryDirectory(prefix="hyperfleet-test-") as home:
        bench = Bench(qemu_driver(), Path(home), FILES)
        yield bench
        await bench.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def minimal(machines: Bench) -> AsyncIterator[Guest]:
    guest = await machines.start(machines.launch())
    await guest.configure("web")
    yield guest
    await guest.let_go()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def debian(machines: Bench) -> AsyncIterator[Guest]:
    guest = await machines.start(machines.launch(base_disk=FILES / "debian-rootfs.ext4"))
    await guest.configure("web")
    yield guest
    await guest.let_go()
