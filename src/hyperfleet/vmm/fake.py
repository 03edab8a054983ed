"""The fake driver: machines without a hypervisor, for tests and for trying the product out.

Their guests speak the real protocol, their web servers answer on real ports of the host's
loopback, their faults come on demand (`fake_faults`). Nothing of the host is run; they live in
this process and end with it, save those that are asked to survive: a file says that their power is
on, and the next driver makes them anew, already booted.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec

from hyperfleet.errors import GuestError, ValidationError
from hyperfleet.failpoints import Point, reach
from hyperfleet.machine import How, TemplateInfo
from hyperfleet.vmm import fake_disks, fake_process, fake_saved
from hyperfleet.vmm.driver import Beginning, Exit, LaunchSpec, Recipe
from hyperfleet.vmm.fake_faults import Boot, Faults, from_kernel_args
from hyperfleet.vmm.fake_guest import FakeGuest
from hyperfleet.vmm.fake_process import FakeProcess
from hyperfleet.vmm.fake_saved import Memory, Saved
from hyperfleet.vmm.fake_templates import FakeTemplates


class FakeDriver:
    """Implements `driver.Driver`. A machine's disk lasts as long as the driver."""

    name = "fake"
    least_mem_mib = 4

    def __init__(
        self, faults: Callable[[LaunchSpec], Faults] = from_kernel_args, *, templates: int = 0
    ) -> None:
        """`templates`: how many it keeps."""
        self._faults = faults
        self._templates = FakeTemplates(templates)
        self.refuses_to_wake = False
        # The guests of machines that sleep.
        self._asleep: dict[str, FakeGuest] = {}
        self._disks: dict[str, dict[str, bytes]] = {}
        self._processes: dict[str, FakeProcess] = {}

    async def open(self) -> None:
        """Nothing is left by a driver before this one but machines."""

    async def close(self) -> None:
        """Nothing is held."""

    async def start(self, launch: LaunchSpec, *, anew: bool = False) -> FakeProcess:
        """See `driver.Driver.start`."""
        faults = self._faults(launch)
        if faults.boot is Boot.REFUSED:
            raise GuestError("the fake would not start (exit status 1): it was asked not to")
        await self.sweep(launch)
        launch.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.console(launch).touch()
        reach(Point.SPAWN_READY)
        if anew:
            await self.forget_memory(launch)
        beginning = self._beginning(launch, anew=anew)
        memory = self._unpack(launch)
        disk = self._disks.setdefault(launch.id, {})
        process = FakeProcess(launch, disk, faults, beginning, asleep=self._asleep, memory=memory)
        self._processes[launch.id] = process
        if beginning.how is How.MEMORY:
            # As a process that is there and stands still.
            if faults.survives:
                (launch.directory / fake_process.POWER).touch()
            reach(Point.WAKE_LOADED)
            fake_saved.forget_memory(launch.directory)
            reach(Point.WAKE_FORGOTTEN)
        for port in launch.ports:
            await process.forward(port)
        process.begin()
        reach(Point.SPAWN_DONE)
        return process

    def _beginning(self, launch: LaunchSpec, *, anew: bool) -> Beginning:
        if self.has_memory(launch):
            if self.refuses_to_wake:
                raise GuestError("what it had in memory can't be gone on from: it was asked not to")
            return Beginning(how=How.MEMORY)
        template = None if anew else self._templates.take(launch)
        if template is None:
            return Beginning()
        return Beginning(how=How.TEMPLATE, template=template)

    def has_memory(self, launch: LaunchSpec) -> bool:
        """See `driver.Driver.has_memory`."""
        return fake_saved.has_memory(launch.directory)

    async def forget_memory(self, launch: LaunchSpec) -> None:
        """See `driver.Driver.forget_memory`."""
        guest = self._asleep.pop(launch.id, None)
        if guest is not None:
            guest.end()
        fake_saved.forget_memory(launch.directory)

    async def make_disk(self, file: Path, size_mib: int) -> None:
        """See `driver.Driver.make_disk`."""
        fake_disks.make(file, size_mib)

    async def copy(self, source: Path, target: Path) -> None:
        """See `driver.Driver.copy`."""
        saved = fake_saved.read(source)
        if saved is None:
            files = self._disks.get(source.name)
            if files is None:
                raise ValidationError("there is no disk to copy")
            guest = self._asleep.get(source.name)
            memory = fake_saved.memory_of(guest) if guest is not None else None
            saved = Saved(files=files, memory=memory)
        if not fake_saved.has_memory(source):
            saved = msgspec.structs.replace(saved, memory=None)
        fake_saved.write(target, saved)

    async def check_memory(self, folder: Path, launch: LaunchSpec) -> None:  # noqa: ARG002
        """See `driver.Driver.check_memory`."""
        if self.refuses_to_wake:
            raise ValidationError("what it had in memory can't be gone on from: asked not to")

    def _unpack(self, launch: LaunchSpec) -> Memory | None:
        """Takes what a snapshot has put into the machine's folder."""
        saved = fake_saved.take(launch.directory)
        if saved is None:
            return None
        self._asleep.pop(launch.id, None)
        self._disks[launch.id] = dict(saved.files)
        return saved.memory

    def recipe(self, launch: LaunchSpec) -> Recipe | None:
        """See `driver.Driver.recipe`."""
        return self._templates.recipe(launch)

    async def distrust(self, template_id: str) -> None:
        """See `driver.Driver.distrust`."""
        self._templates.discard(template_id)

    def templates(self) -> list[TemplateInfo]:
        """See `driver.Driver.templates`."""
        return self._templates.kept()

    async def remove_template(self, template_id: str) -> None:
        """See `driver.Driver.remove_template`."""
        self._templates.remove(template_id)

    async def adopt(self, launch: LaunchSpec) -> FakeProcess | None:
        """See `driver.Driver.adopt`."""
        process = self._processes.get(launch.id)
        if self.has_memory(launch):
            # It has fallen asleep: its process is of no use any more.
            await self.sweep(launch)
            return None
        if process is None and (launch.directory / fake_process.POWER).exists():
            return await self._survivor(launch)
        if process is None or not process.alive:
            return None
        # As the kernel closes the sockets of a control plane that died.
        process.guest.hang_up()
        return process

    def last_exit(self, launch: LaunchSpec) -> Exit:
        """Nothing is."""
        del launch
        return Exit()

    async def sweep(self, launch: LaunchSpec) -> None:
        """See `driver.Driver.sweep`."""
        process = self._processes.pop(launch.id, None)
        if process is not None:
            await process.kill()
        (launch.directory / fake_process.POWER).unlink(missing_ok=True)

    async def remove(self, launch: LaunchSpec) -> None:
        """See `driver.Driver.remove`."""
        await self.sweep(launch)
        self._disks.pop(launch.id, None)
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(launch.directory)

    def disk_bytes(self, launch: LaunchSpec) -> int:
        """See `driver.Driver.disk_bytes`."""
        return sum(len(content) for content in self._disks.get(launch.id, {}).values())

    def console(self, launch: LaunchSpec) -> Path:
        """See `driver.Driver.console`."""
        return launch.directory / fake_process.CONSOLE

    async def _survivor(self, launch: LaunchSpec) -> FakeProcess:
        disk = self._disks.setdefault(launch.id, {})
        process = FakeProcess(launch, disk, self._faults(launch), asleep=self._asleep)
        self._processes[launch.id] = process
        for port in launch.ports:
            await process.forward(port)
        process.go_on()
        return process

    def process(self, machine_id: str) -> FakeProcess | None:
        """The machine's process, to do it harm in tests."""
        return self._processes.get(machine_id)
