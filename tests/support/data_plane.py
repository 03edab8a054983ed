"""The supervision of the data plane, as tests open it, and what they look at."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

import httpx

from hyperfleet.lifecycle import Status
from hyperfleet.machine import ExposedPort, Machine, MachineNetwork, MachineSpec, PortOptions
from hyperfleet.proxy.data_plane import DataPlane
from hyperfleet.proxy.interface import Answer
from hyperfleet.proxy.process import DataPlaneConfig
from support import plain

# Seconds; generous, for a loaded machine.
PATIENCE = 30.0
NOW = datetime(2026, 1, 1, tzinfo=UTC)
WEB = "aaaaaaaaaaaa"
OK = (200, "ok")
STOPPED = (503, '{"error":"Machine is not running"}')


def a_machine(
    machine_id: str = WEB,
    *,
    status: Status = Status.RUNNING,
    upstream: str | None = None,
    listening: bool = True,
    options: tuple[PortOptions, ...] = (),
) -> Machine:
    return Machine(
        id=machine_id,
        spec=MachineSpec(
            name=f"m-{machine_id}",
            vcpu_count=1,
            mem_size_mib=64,
            kernel_image_path="k",
            rootfs_path="r",
            exposed_ports=(80,),
            port_options=options,
        ),
        status=status,
        vmm="fake",
        network=MachineNetwork(mode="user"),
        ports=(ExposedPort(port=80, listening=listening, upstream=upstream),),
        lifecycle=1,
        created_at=NOW,
        updated_at=NOW,
    )


async def nobody_asks(machine: str, port: int) -> Answer | None:
    raise AssertionError("no probe was expected")


@contextlib.asynccontextmanager
async def opened(
    config: DataPlaneConfig,
    *machines: Machine,
    probe: Callable[[str, int], Awaitable[Answer | None]] = nobody_asks,
) -> AsyncIterator[DataPlane]:
    plane = DataPlane(config, probe)
    for machine in machines:
        await plane.publish(machine)
    await plane.open()
    try:
        yield plane
    finally:
        await plane.close(keep_running=False)


async def page(config: DataPlaneConfig, machine_id: str = WEB) -> tuple[int, str]:
    async with httpx.AsyncClient(verify=plain.NOBODY) as client:
        url = f"http://127.0.0.1:{config.port}/proxy/{machine_id}/80/"
        answer = await client.get(url, timeout=PATIENCE)
        return answer.status_code, answer.text


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0)


def alive(pid: int) -> bool:
    """A process that runs; one that its parent has not reaped yet does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        # The second, if it ends between the opening and the reading (proc(5)).
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def holders(config: DataPlaneConfig) -> list[int]:
    """Data planes that run in the folder of the control socket."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and alive(int(entry.name)):
            try:
                here = (entry / "cwd").readlink() == config.socket.parent
            except OSError:
                continue
            if here:
                found.append(int(entry.name))
    return found
