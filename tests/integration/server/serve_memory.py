"""A server for tests: `hyperfleet serve` with a fleet that has one machine, and no data plane.

`main` reads its settings from the environment. OPEN_GATE names a FIFO that `open` waits
for; OPEN_FAILS is the reason that it gives up with; with OPEN_HANGS it says so and never returns. A
stop of the machine `stuck` never returns either. API_FAILS is what its API ends with by itself.
"""

from __future__ import annotations

import asyncio
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import uvicorn

from hyperfleet.errors import NotFoundError, SettingsError
from hyperfleet.lifecycle import Status
from hyperfleet.machine import Machine, MachineNetwork, MachineSpec
from hyperfleet.metrics.instruments import Instruments
from hyperfleet.metrics.scrape import Metrics
from hyperfleet.server.serve import serve
from hyperfleet.settings import Settings, load
from hyperfleet.store.database import Database
from hyperfleet.vmm.fake import FakeDriver


class OneMachine:
    def __init__(self) -> None:
        now = datetime.now(UTC)
        self._machine = Machine(
            id="abc123def456",
            spec=MachineSpec(
                name="web", vcpu_count=1, mem_size_mib=128, kernel_image_path="k", rootfs_path="r"
            ),
            status=Status.RUNNING,
            vmm="fake",
            network=MachineNetwork(mode="user"),
            created_at=now,
            updated_at=now,
        )

    def get(self, ref: str) -> Machine:
        if ref not in ("web", self._machine.id):
            raise NotFoundError(f"Machine not found: {ref}")
        return self._machine

    def list(self, **asked: Any) -> tuple[list[Machine], int]:
        return [] if asked["offset"] else [self._machine], 1

    async def stop(self, ref: str) -> Machine:
        if ref == "stuck":
            sys.stdout.write("stop is stuck here\n")
            sys.stdout.flush()
            await asyncio.Event().wait()
        self._machine = msgspec.structs.replace(self._machine, status=Status.STOPPED)
        return self.get(ref)


class MemoryBackend:
    driver = "memory"
    templates = FakeDriver()

    def __init__(self) -> None:
        self.machines: Any = OneMachine()
        self.metrics = Metrics(
            Instruments(driver=self.driver, proxy_pid=lambda: None),
            machines=self.everything,
            ask=self._no_report,
            per_machine=False,
        )

    async def open(self) -> None:
        if reason := os.environ.get("OPEN_FAILS"):
            raise SettingsError(reason)
        if "OPEN_HANGS" in os.environ:
            sys.stdout.write("open hangs here\n")
            sys.stdout.flush()
            await asyncio.Event().wait()
        if gate := os.environ.get("OPEN_GATE"):
            await asyncio.to_thread(Path(gate).read_bytes)

    async def _no_report(self, machines: bool) -> None:
        return None

    def everything(self) -> list[Machine]:
        return [self.machines.get("web")]

    async def close(self) -> None:
        sys.stdout.write("backend closed\n")


def build(_settings: Settings, _database: Database) -> MemoryBackend:
    return MemoryBackend()


async def _api_fails(self: uvicorn.Server, counter: int) -> bool:
    if counter:
        raise OSError(os.environ["API_FAILS"])
    return False


def main() -> int:
    if "API_FAILS" in os.environ:
        uvicorn.Server.on_tick = _api_fails  # type: ignore[method-assign]
    return serve(load(os.environ, None), build)
