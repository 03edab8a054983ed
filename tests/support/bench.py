"""A driver under test, with the machines that a test starts on it.

QEMU's boot real guests from what `hyperfleet setup` makes.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hyperfleet import binaries
from hyperfleet.fleet.pulse import PulseLimits, until_stuck
from hyperfleet.guest.agent import Agent
from hyperfleet.guest.values import ExecRequest, ExecResult, GuestNetwork, Mount
from hyperfleet.machine import new_machine_id
from hyperfleet.network import user
from hyperfleet.network.interface import Networks
from hyperfleet.network.user import UserNetwork
from hyperfleet.vmm.driver import Driver, Exit, LaunchSpec, Process
from hyperfleet.vmm.qemu import QemuDriver
from hyperfleet.vmm.templates import Templates
from support.images import FILES, images
from support.need import Need
from support.server import link_templates

BOOT_S = 60.0
# What a bench can be of. QEMU's machines are cloned; all could boot, as one test has them do.
DRIVERS = ("fake", pytest.param("qemu", marks=pytest.mark.vm))
BOOTS = pytest.param("qemu, booting", marks=pytest.mark.vm)


class Bench:
    """A driver, what its machines boot from, and those that were started."""

    def __init__(self, driver: Driver, home: Path, files: Path) -> None:
        self.driver = driver
        self._home = home
        self._files = files
        self.launches: list[LaunchSpec] = []

    def launch(self, **changes: object) -> LaunchSpec:
        machine_id = new_machine_id()
        launch = LaunchSpec(
            id=machine_id,
            name="web",
            # Deeper than the path of a Unix socket may be.
            directory=self._home / ("deep" * 30) / machine_id,
            vcpu_count=1,
            mem_size_mib=128,
            kernel=self._files / "vmlinux",
            initramfs=self._files / "initramfs.cpio",
            kernel_args=None,
            base_disk=self._files / "minimal-rootfs.ext4",
            network=user.assigned(machine_id),
            ports=(80,),
        )
        launch = msgspec.structs.replace(launch, **changes)
        self.launches.append(launch)
        return launch

    async def start(self, launch: LaunchSpec) -> Guest:
        """One that hangs before its agent speaks is started anew, once, as a fleet does it."""
        mounts = [Mount(serial=disk.serial, path=disk.mount_path) for disk in launch.disks]
        process = await self.driver.start(launch)
        hangs = asyncio.create_task(until_stuck(process, PulseLimits(), launch.vcpu_count))
        comes = asyncio.create_task(Guest.new(process, mounts))
        await asyncio.wait((hangs, comes), return_when=asyncio.FIRST_COMPLETED)
        if comes.done():
            hangs.cancel()
            return await comes
        said = self.driver.console(launch).read_text(errors="replace")
        sys.stderr.write(f"{launch.id} hung: {hangs.result()}\n{said}\n")
        comes.cancel()
        await asyncio.wait((comes,))
        await process.kill()
        return await Guest.new(await self.driver.start(launch), mounts)

    async def teach(self, **changes: object) -> None:
        """Has a template made, as a fleet has it: after a machine of its shape has booted."""
        launch = self.launch(**changes)
        process = await self.driver.start(launch)
        assert process.beginning.template is None
        await process.kill()
        await make_template(self.driver, launch)

    async def close(self) -> None:
        for launch in self.launches:
            await self.driver.remove(launch)


async def make_template(driver: Driver, launch: LaunchSpec) -> None:
    """Of the shape of a machine that this driver has booted."""
    recipe = driver.recipe(launch)
    assert recipe is not None
    await recipe.make()


class Guest:
    """A machine that has come up, with its agent."""

    def __init__(self, process: Process, agent: Agent) -> None:
        self.process = process
        self.agent = agent

    @classmethod
    async def of(cls, process: Process) -> Guest:
        return cls(process, await Agent.connect(*await process.channel(), timeout=BOOT_S))

    @classmethod
    async def new(cls, process: Process, disks: Iterable[Mount] = ()) -> Guest:
        """One that no host has spoken to yet: with its first name it gets its disks."""
        guest = await cls.of(process)
        await guest.agent.configure("web", None, BOOT_S, disks=disks)
        return guest

    async def run(self, *argv: str) -> ExecResult:
        return await self.agent.exec(ExecRequest(argv=argv))

    async def sh(self, script: str, **more: Any) -> str:
        """What a script that succeeds writes; `more` as ExecRequest has it."""
        result = await self.agent.exec(ExecRequest(argv=("sh", "-c", script), **more))
        assert result.exit_code == 0, result.stderr.decode()
        return result.stdout.decode()

    async def configure(self, hostname: str) -> None:
        network = GuestNetwork(address=user.GUEST_ADDRESS, gateway=user.GATEWAY, dns=user.DNS)
        await self.agent.configure(hostname, network)

    async def serve(self, page: str) -> None:
        await self.configure("web")
        await self.sh(f"echo {page} > /index.html; httpd -p 80 -h /")

    async def power_off(self) -> Exit:
        await self.agent.shutdown(0.2)
        ended = await self.process.wait()
        await self.let_go()
        return ended

    async def let_go(self) -> None:
        await self.agent.close()
        self.process.release()


async def page(upstream: str) -> bytes:
    host, port = upstream.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /index.html HTTP/1.0\r\n\r\n")
    try:
        return (await reader.read()).partition(b"\r\n\r\n")[2]
    finally:
        writer.close()


def qemu_driver(templates: Templates | None = None) -> QemuDriver:
    """Skips the test (in CI: fails it) where something that real guests need is missing.

    Without `templates` every machine boots.
    """
    need = Need()
    for program in ("qemu-system-x86_64", "qemu-img"):
        need(program)
    images(need)
    return QemuDriver(
        networks=Networks(UserNetwork()), kvm=False, confine=binaries.confine, templates=templates
    )


def warm_driver(templates: Path, home: Path) -> QemuDriver:
    """One that clones what `support.templates` has made, whose folder is given."""
    link_templates(templates, home)
    return qemu_driver(templates_in(home))


def templates_in(home: Path, most: int = 4) -> Templates:
    return Templates(home, most=most, confine=binaries.confine, limit=BOOT_S)


@contextlib.asynccontextmanager
async def opened(driver: Driver, home: Path) -> AsyncIterator[Bench]:
    """A bench of a driver that runs while the block lasts."""
    await driver.open()
    bench = Bench(driver, home, FILES)
    try:
        yield bench
    finally:
        await bench.close()
        await driver.close()
