"""A machine of the fake driver while its power is on."""

from __future__ import annotations

import asyncio
import signal
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable
from pathlib import Path

from hyperfleet.errors import GuestError
from hyperfleet.failpoints import Point, reach
from hyperfleet.machine import How
from hyperfleet.network.interface import host_address
from hyperfleet.vmm import fake_disks, fake_saved
from hyperfleet.vmm.driver import Beginning, CpuTime, Exit, LaunchSpec
from hyperfleet.vmm.fake_faults import Boot, Clone, Faults
from hyperfleet.vmm.fake_guest import FakeGuest
from hyperfleet.vmm.fake_saved import Memory, Saved
from hyperfleet.vmm.fake_way import Way

# Files of a machine: what it wrote to its console; that its power is on.
CONSOLE = "console.log"
POWER = "power"
# A first start of it hung.
_HUNG = "hung"
_GUEST_IP = "10.0.2.15"
_BOOTED = Beginning()
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
        beginning: Beginning = _BOOTED,
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
        self._console = launch.directory / CONSOLE
        self._power = launch.directory / POWER
        self._faults = faults
        self._hangs = _hangs(launch, faults)
        # A clone of a template may fail where a boot would not.
        self._clone = faults.clone if beginning.template is not None else Clone.OK
        self._booted = beginning.how is How.MEMORY
        self.is_paused = self.refuses_to_pause = self.refuses_to_save = False
        self.stalled: str | None = None
        self._hears_stalled: Callable[[str | None], None] = lambda _: None
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

    def when_stalled(self, hears: Callable[[str | None], None]) -> None:
        """See `driver.Process`."""
        self._hears_stalled = hears

    def stalls(self, why: str | None) -> None:
        """For tests: it stands still by itself from now on, or not any more."""
        self.stalled = why
        self._hears_stalled(why)

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
