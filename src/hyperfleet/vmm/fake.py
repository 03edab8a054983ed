"""The fake driver: machines without a hypervisor, for tests and for trying the product out.

Their guests speak the real protocol, their web servers answer on real ports of the host's
loopback, their faults come on demand (`fake_faults`). Nothing of the host is run; they live in
this process and end with it, save those that are asked to survive: a file says that their power is
on, and the next driver makes them anew, already booted.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable
from pathlib import Path

import msgspec

from hyperfleet.errors import GuestError, ValidationError
from hyperfleet.failpoints import Point, reach
from hyperfleet.machine import How, TemplateInfo
from hyperfleet.network.interface import host_address
from hyperfleet.vmm import fake_disks, fake_saved
from hyperfleet.vmm.driver import Beginning, CpuTime, Exit, LaunchSpec, Recipe
from hyperfleet.vmm.fake_faults import Boot, Clone, Faults, from_kernel_args
from hyperfleet.vmm.fake_guest import FakeGuest
from hyperfleet.vmm.fake_saved import Memory, Saved
from hyperfleet.vmm.fake_templates import FakeTemplates
from hyperfleet.vmm.fake_way import Way

_CONSOLE = "console.log"
_POWER = "power"
# A first start of it hung.
_HUNG = "hung"
_GUEST_IP = "10.0.2.15"
BOOTED = Beginning()
_PANIC = (
    "[    0.412000] VFS: Cannot open root device\n"
    "[    0.413000] Kernel panic - not syncing: VFS: Unable to mount root fs\n"
)
_NO_DISK = "hyperfleet-agent: cannot mount /dev/vda: No such file or directory\n"


class FakeProcess:
    """Implements `driver.Process`."""

    pid = None

    def __init__(
        self,
        launch: LaunchSpec,
        files: dict[str, bytes],
        faults: Faults,
        beginning: Beginning = BOOTED,
        *,
        asleep: dict[str, FakeGuest] | None = None,
        memory: Memory | None = None,
    ) -> None:
        """`asleep`: where guests are kept that sleep, by machine; one that is woken is there.

        `memory`: of one that is woken and is not.
        """
        self.beginning = beginning
        self._asleep = asleep if asleep is not None else {}
        self._id = launch.id
        self._folder = launch.directory
        self._loop = asyncio.get_running_loop()
        self._console = launch.directory / _CONSOLE
        self._power = launch.directory / _POWER
        self._faults = faults
        self._hangs = _hangs(launch, faults)
        # A clone of a template may fail where a boot would not.
        self._clone = faults.clone if beginning.template is not None else Clone.OK
        self._booted = beginning.how is How.MEMORY
        self.is_paused = self.refuses_to_pause = self.refuses_to_save = False
        # For tests to call: it went on by itself.
        self.was_late: Callable[[], None] = lambda: None
        self._ended: asyncio.Future[Exit] = self._loop.create_future()
        self._address = host_address(launch.id)
        self._ways: dict[int, Way] = {}
        self._timers: list[asyncio.TimerHandle] = []
        self._disks = launch.disks
        self.guest = self._guest(files, memory)
        fake_disks.mount(self.guest.files, self._disks)

    def _guest(self, files: dict[str, bytes], memory: Memory | None) -> FakeGuest:
        slept = self._asleep.pop(self._id, None)
        if slept is not None and self.beginning.how is How.MEMORY:
            slept.power_off = self._power_off
            return slept
        guest = FakeGuest(
            files,
            guest_ip=_GUEST_IP,
            behaviour=self._faults.channel,
            on_power_off=self._power_off,
            write=self._write,
        )
        if memory is not None and self.beginning.how is How.MEMORY:
            guest.boot_id, guest.sockets = memory.boot_id, [*memory.sockets]
        return guest

    def begin(self) -> None:
        """Switches the power on."""
        if self._faults.survives:
            self._power.touch()
        self._timers.append(self._loop.call_later(self._faults.delay, self._boot))
        if self._faults.dies_after is not None:
            self._timers.append(
                self._loop.call_later(
                    self._faults.dies_after, self.end, Exit(signal=signal.SIGKILL)
                )
            )

    def go_on(self) -> None:
        """Was switched on and booted before this process was there."""
        self._serve()
        self._booted = True
        self.guest.wake()

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return not self._ended.done()

    def cpu_time(self) -> CpuTime | None:
        """It has no process of its own; one that hangs is seen to do nothing."""
        return CpuTime(0.0, 0.0) if self._hangs else None

    async def channel(self) -> tuple[StreamReader, StreamWriter]:
        """See `driver.Process`."""
        self._must_live()
        return self.guest.connect()

    async def forward(self, guest_port: int) -> str:
        """See `driver.Process`."""
        self._must_live()
        way = self._ways.get(guest_port)
        if way is None:
            way = self._ways[guest_port] = Way(self.guest, guest_port, self._address)
        address = await way.open()
        self._must_live()
        return address

    async def unforward(self, guest_port: int) -> None:
        """See `driver.Process`."""
        way = self._ways.pop(guest_port, None)
        if way is not None:
            way.close()

    async def forwards(self) -> dict[int, str]:
        """See `driver.Process`."""
        return {port: await way.open() for port, way in self._ways.items()}

    async def pause(self) -> None:
        """See `driver.Process`. Its programs go on; nothing that is said to it is heard."""
        self._must_live()
        if self.refuses_to_pause:
            raise GuestError("it would not stand still")
        self.is_paused = True
        self.guest.freeze()

    async def resume(self) -> bool:
        """See `driver.Process`."""
        self._must_live()
        stood, self.is_paused = self.is_paused, False
        if self._booted:
            self.guest.wake()
        return stood

    def when_late(self, hears: Callable[[], None]) -> None:
        """See `driver.Process`."""
        self.was_late = hears

    async def save(self) -> None:
        """See `driver.Process`. Its guest is kept; only that it is, is on disk."""
        await self.pause()
        if self.refuses_to_save:
            raise GuestError("its memory could not be saved")
        fake_saved.note_memory(self._folder)

    async def snapshot(self, into: Path) -> None:
        """See `driver.Process`. What its programs have not done yet is not in it."""
        paused = self.is_paused
        await self.pause()
        refused = self.refuses_to_save
        if not refused:
            memory = fake_saved.memory_of(self.guest)
            fake_saved.write(into, Saved(files=self.guest.files, memory=memory))
            reach(Point.SNAPSHOT_STILL)
        if not paused:
            await self.resume()
        if refused:
            raise GuestError("its memory could not be saved")

    async def kill(self) -> None:
        """See `driver.Process`."""
        self.end(Exit(signal=signal.SIGKILL))

    async def wait(self) -> Exit:
        """See `driver.Process`."""
        return await asyncio.shield(self._ended)

    def release(self) -> None:
        """Nothing of the host is held for one that looks on."""

    def end(self, how: Exit) -> None:
        """The process is gone, and all that hung on it."""
        if self._ended.done():
            return
        self._ended.set_result(how)
        for timer in self._timers:
            timer.cancel()
        for way in self._ways.values():
            way.close()
        self._ways.clear()
        fake_disks.unmount(self.guest.files, self._disks)
        if fake_saved.has_memory(self._folder):
            self.guest.hang_up()
            self._asleep[self._id] = self.guest
        else:
            self.guest.end()
        if self._faults.survives:
            self._power.unlink(missing_ok=True)

    def _power_off(self) -> None:
        # Later: the program that asks for it is ended by that, and can't be while it runs.
        self._loop.call_soon(self.end, Exit(code=0, powered_off=True))

    def _boot(self) -> None:
        if self.beginning.how is How.MEMORY:
            self.guest.wake()
        elif self._clone is Clone.DIES:
            self.end(Exit(signal=signal.SIGSEGV))
        elif self._clone is Clone.NEVER:
            return
        elif self._faults.boot is Boot.PANIC:
            self._print(_PANIC)
            self.end(Exit(code=0))
        elif self._faults.boot is Boot.NO_DISK:
            self._print(_NO_DISK)
            self.end(Exit(code=0, powered_off=True))
        elif self._faults.boot is not Boot.NEVER and not self._hangs:
            self._print("hyperfleet-agent: ready\n")
            self._serve()
            self._booted = True
            self.guest.wake()

    def _serve(self) -> None:
        if self._faults.listens is not None:
            self.guest.listen("0.0.0.0", self._faults.listens, "/")

    def _print(self, text: str) -> None:
        self._write(text.encode())

    def _write(self, data: bytes) -> None:
        with self._console.open("ab") as console:
            console.write(data)

    def _must_live(self) -> None:
        if not self.alive:
            raise GuestError("the machine's process has ended")


def _hangs(launch: LaunchSpec, faults: Faults) -> bool:
    """Whether this start is one that hangs."""
    if faults.boot is Boot.HANGS_ONCE:
        hung = launch.directory / _HUNG
        first = not hung.exists()
        hung.touch()
        return first
    return faults.boot is Boot.HANGS


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
                (launch.directory / _POWER).touch()
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
        if process is None and (launch.directory / _POWER).exists():
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
        (launch.directory / _POWER).unlink(missing_ok=True)

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
        return launch.directory / _CONSOLE

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
