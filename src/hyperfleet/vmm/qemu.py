"""The QEMU driver: `-M microvm` processes that outlive the control plane.

All that belongs to a machine lies in its directory: disk, console, pid file, the sockets of QMP and
of the agent, QEMU's own words. The process is found again by its pid file and its command line.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec

from hyperfleet.errors import CapacityError, GuestError, NotFoundError, ValidationError
from hyperfleet.failpoints import Point, reach
from hyperfleet.machine import How, TemplateInfo
from hyperfleet.network.interface import Joint, Networks
from hyperfleet.vmm import (
    confinement,
    memory_file,
    qemu_command,
    qemu_disk,
    qemu_spawn,
    saved_memory,
    shortage,
    tsc,
)
from hyperfleet.vmm.cgroup import Cgroups, without
from hyperfleet.vmm.driver import Beginning, DataDisk, Exit, LaunchSpec, Recipe
from hyperfleet.vmm.host_process import HostProcess
from hyperfleet.vmm.qemu_command import Data, Memory, Sockets
from hyperfleet.vmm.qemu_process import QemuProcess
from hyperfleet.vmm.shape import Shape, shape_of
from hyperfleet.vmm.templates import Template, Templates

_log = logging.getLogger(__name__)

_MEMINFO = Path("/proc/meminfo")
# What QEMU writes to in the machine's directory.
_OWN_FILES = (qemu_disk.DISK, qemu_command.CONSOLE)


class QemuDriver:
    """Implements `driver.Driver`."""

    name = "qemu"
    # Below it Debian's cloud kernel finds no room for itself, the initramfs and a first program.
    least_mem_mib = 96

    def __init__(
        self,
        *,
        networks: Networks,
        kvm: bool,
        confine: Callable[[], Path],
        qemu: str = "qemu-system-x86_64",
        qemu_img: str = "qemu-img",
        templates: Templates | None = None,
        cgroups: Cgroups | None = None,
    ) -> None:
        """`kvm`: whether it really runs here; else TCG, ten times slower.

        `confine`: where `hyperfleet-confine` is. Without `templates` every machine boots.
        `cgroups`: what their processes are held by, opened with this.
        """
        self._networks = networks
        self._confine = confine
        self._kvm = kvm
        self._qemu = qemu
        self._qemu_img = qemu_img
        self._templates = templates
        self._cgroups = cgroups or without()
        # Of the machines that booted, and of which no template was made yet.
        self._shapes: dict[str, Shape] = {}

    async def open(self) -> None:
        """See `driver.Driver.open`."""
        await asyncio.to_thread(self._cgroups.open)
        if self._templates is not None:
            await self._templates.open()

    async def close(self) -> None:
        """See `driver.Driver.close`."""
        if self._templates is not None:
            self._templates.close()

    def warm_up(self) -> None:
        """Measures what the first start would otherwise wait for. Blocks for a second."""
        if os.geteuid() == 0 and not confinement.is_mapped():
            _log.warning(
                "this user namespace has no users for machines: they run as the server's own user"
            )
        if not self._kvm:
            tsc.tsc_khz()

    async def start(self, launch: LaunchSpec, *, anew: bool = False) -> QemuProcess:
        """See `driver.Driver.start`. A process that is left from before is ended first."""
        await self.sweep(launch)
        _must_be_files(launch)
        _must_fit(launch.mem_size_mib)
        khz = None if self._kvm else await asyncio.to_thread(tsc.tsc_khz)
        await asyncio.to_thread(self._prepare_directory, launch)
        if anew:
            await asyncio.to_thread(saved_memory.remove, launch.directory)
        launch, joint = await self._attached(launch)
        shape = shape_of(launch, list(joint.cards), qemu=self._qemu, kvm=self._kvm)
        if saved_memory.is_there(launch.directory):
            woken = Beginning(how=How.MEMORY)
            return await self._begin(launch, khz, joint, shape=shape, beginning=woken)
        note = None
        template = None if anew else await self._template_for(launch, shape)
        if template is not None:
            clone = Beginning(how=How.TEMPLATE, template=template.key)
            try:
                return await self._begin(
                    launch, khz, joint, shape=shape, beginning=clone, template=template
                )
            except GuestError as error:
                note = f"a clone of template {template.key} could not be started: {error}"
                _log.warning("machine %s boots: %s", launch.id, note)
            await self.distrust(template.key)
            await self.sweep(launch)
            launch, joint = await self._attached(launch)
        return await self._begin(launch, khz, joint, shape=shape, beginning=Beginning(note=note))

    async def _attached(self, launch: LaunchSpec) -> tuple[LaunchSpec, Joint]:
        """Its cgroup comes first: what attaches it belongs there too."""
        group = await asyncio.to_thread(
            self._cgroups.make,
            launch.id,
            vcpus=launch.vcpu_count,
            mem_mib=qemu_command.process_mib(launch.mem_size_mib, kvm=self._kvm),
        )
        launch = msgspec.structs.replace(launch, cgroup=group)
        return launch, await self._networks.of(launch.network).attach(launch)

    async def _template_for(self, launch: LaunchSpec, shape: Shape) -> Template | None:
        if self._templates is None:
            return None
        template = await self._templates.take(shape)
        if template is None:
            self._shapes[launch.id] = shape
        return template

    async def _begin(
        self,
        launch: LaunchSpec,
        khz: int | None,
        joint: Joint,
        *,
        shape: Shape,
        beginning: Beginning,
        template: Template | None = None,
    ) -> QemuProcess:
        reach(Point.SPAWN_READY)
        memory = state = None
        with contextlib.ExitStack() as stack:
            for fd in joint.inherited:
                stack.callback(os.close, fd)
            line = await _line_of(shape)
            if template is not None:
                memory = template.memory
                stack.callback(os.close, memory)
                state = memory_file.of_bytes("state", template.state)
                stack.callback(os.close, state)
            elif beginning.how is How.MEMORY:
                state = await asyncio.to_thread(saved_memory.open_for, launch.directory, line)
                stack.callback(os.close, state)
            await asyncio.to_thread(saved_memory.note_line, launch.directory, line)
            host = await qemu_spawn.spawned(
                lambda: self._spawn(launch, khz, joint, memory=memory, state=state)
            )
        return await self._connected(host, launch, beginning, state)

    async def _connected(
        self, host: HostProcess, launch: LaunchSpec, beginning: Beginning, state: int | None
    ) -> QemuProcess:
        network = self._networks.of(launch.network)
        try:
            return await QemuProcess.connect(
                host, launch, network, beginning, self._cgroups, state=state
            )
        except GuestError as error:
            ended = _describe(await host.kill())
            words = await asyncio.to_thread(qemu_spawn.last_words, launch.directory)
            if shortage.is_no_room(words):
                raise CapacityError(f"{launch.directory}: {words}") from error
            raise GuestError(f"QEMU would not start ({ended}): {words or error}") from error
        except BaseException:
            await host.kill()
            raise

    def recipe(self, launch: LaunchSpec) -> Recipe | None:
        """See `driver.Driver.recipe`."""
        shape = self._shapes.pop(launch.id, None)
        if self._templates is None or shape is None or not self._templates.lacks(shape):
            return None
        make = functools.partial(_make_template, self._templates, shape)
        return Recipe(shape=shape, mem_size_mib=shape.mem_size_mib, make=make)

    async def distrust(self, template_id: str) -> None:
        """See `driver.Driver.distrust`."""
        if self._templates is not None:
            await self._templates.discard(template_id)

    def templates(self) -> list[TemplateInfo]:
        """See `driver.Driver.templates`."""
        return [] if self._templates is None else self._templates.kept()

    async def remove_template(self, template_id: str) -> None:
        """See `driver.Driver.remove_template`."""
        if self._templates is None:
            raise NotFoundError("there are no templates")
        await self._templates.remove(template_id)

    async def adopt(self, launch: LaunchSpec) -> QemuProcess | None:
        """See `driver.Driver.adopt`."""
        await asyncio.to_thread(saved_memory.remove_half, launch.directory)
        host = await qemu_spawn.find(launch.id, launch.directory)
        if host is None:
            return None
        self._cgroups.adopt(launch.id, host.pid)
        if saved_memory.is_there(launch.directory):
            # It has fallen asleep, or was being woken: what is on disk is the machine.
            await host.kill()
            return None
        try:
            process = await QemuProcess.connect(
                host, launch, self._networks.of(launch.network), Beginning(), self._cgroups
            )
        except BaseException:
            host.release()
            raise
        if await process.is_unborn():
            # A clone whose state nobody will tell it any more.
            await process.kill()
            return None
        return process

    def last_exit(self, launch: LaunchSpec) -> Exit:
        """See `driver.Driver.last_exit`."""
        return Exit(out_of_memory=self._cgroups.out_of_memory(launch.id))

    async def sweep(self, launch: LaunchSpec) -> None:
        """See `driver.Driver.sweep`."""
        if (host := await qemu_spawn.find(launch.id, launch.directory)) is not None:
            await host.kill()
        await self._networks.of(launch.network).detach(launch)
        # Whatever of it is left, known or not, ends with that.
        await asyncio.to_thread(self._cgroups.remove, launch.id)
        qemu_spawn.clear(launch.directory)

    def has_memory(self, launch: LaunchSpec) -> bool:
        """See `driver.Driver.has_memory`."""
        return saved_memory.is_there(launch.directory)

    async def forget_memory(self, launch: LaunchSpec) -> None:
        """See `driver.Driver.forget_memory`."""
        await asyncio.to_thread(saved_memory.remove, launch.directory)

    async def make_disk(self, file: Path, size_mib: int) -> None:
        """See `driver.Driver.make_disk`."""
        with shortage.told(file):
            await asyncio.to_thread(
                qemu_disk.make_data, file, size_mib, environment=qemu_spawn.environment()
            )

    async def copy(self, source: Path, target: Path) -> None:
        """See `driver.Driver.copy`."""
        await asyncio.to_thread(qemu_disk.copy, source, target)
        await asyncio.to_thread(saved_memory.link, source, target)

    async def check_memory(self, folder: Path, launch: LaunchSpec) -> None:
        """See `driver.Driver.check_memory`."""
        try:
            about = saved_memory.about_of(folder)
            shape = shape_of(launch, [], qemu=self._qemu, kvm=self._kvm)
            line = await _line_of(msgspec.structs.replace(shape, mtus=about.line.mtus))
            if line == about.line:
                return
            why = saved_memory.differs(about)
        except (OSError, msgspec.MsgspecError) as error:
            why = str(error)
        raise ValidationError(f"what it had in memory can't be gone on from: {why}")

    async def remove(self, launch: LaunchSpec) -> None:
        """See `driver.Driver.remove`."""
        self._shapes.pop(launch.id, None)
        await self.sweep(launch)
        with contextlib.suppress(FileNotFoundError):
            await asyncio.to_thread(shutil.rmtree, launch.directory)

    def disk_bytes(self, launch: LaunchSpec) -> int:
        """See `driver.Driver.disk_bytes`."""
        try:
            return (launch.directory / qemu_disk.DISK).stat().st_blocks * 512
        except FileNotFoundError:
            return 0

    def console(self, launch: LaunchSpec) -> Path:
        """The file behind the guest's first serial port; all boots, the last one last."""
        return launch.directory / qemu_command.CONSOLE

    def _prepare_directory(self, launch: LaunchSpec) -> None:
        with shortage.told(launch.directory):
            launch.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            qemu_disk.prepare(
                launch.directory,
                launch.base_disk.absolute(),
                size_mib=launch.disk_size_mib,
                qemu_img=self._qemu_img,
                environment=qemu_spawn.environment(),
            )

    def _spawn(
        self,
        launch: LaunchSpec,
        khz: int | None,
        joint: Joint,
        *,
        memory: int | None,
        state: int | None,
    ) -> int:
        """Blocks until the program is loaded; its pid. The child is ours to reap, by pidfd."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(shortage.told(launch.directory))
            user = confinement.user_of(launch.id, kvm=self._kvm)
            files = _Files.of(launch, user, stack)
            largest = confinement.largest_file(launch.directory / qemu_disk.DISK)
            data = [_opened(disk, stack) for disk in launch.disks]
            largest = max(largest, *(disk.file.stat().st_size for disk in launch.disks), 0)

            def command(sockets: Sockets) -> list[str]:
                return qemu_command.command(
                    msgspec.structs.replace(launch, kernel=files.kernel, initramfs=files.initramfs),
                    qemu=self._qemu,
                    kvm=self._kvm,
                    tsc_khz=khz,
                    sockets=sockets,
                    cards=joint.cards,
                    disk=qemu_command.own_disk(opened=files.base is not None),
                    base=files.base,
                    data=data,
                    memory=None if memory is None else Memory(memory, shared=False),
                    incoming=state is not None,
                )

            place = qemu_spawn.Place(
                id=launch.id,
                directory=launch.directory,
                before=confinement.prefix(self._confine, user, largest, launch.cgroup),
                user=user,
                files=_OWN_FILES,
            )
            handed = (memory, state, *(disk.descriptor for disk in data))
            passed = tuple(fd for fd in handed if fd is not None)
            return qemu_spawn.spawn(place, command, (*joint.inherited, *files.inherited, *passed))


class _Files(msgspec.Struct, frozen=True):
    """What QEMU boots from: by path, or by descriptors where its user can't go by the path."""

    kernel: Path
    initramfs: Path
    base: int | None
    inherited: tuple[int, ...]

    @classmethod
    def of(
        cls, launch: LaunchSpec, user: confinement.User | None, stack: contextlib.ExitStack
    ) -> _Files:
        """Descriptors are open as long as `stack`."""
        if user is None:
            return cls(launch.kernel.absolute(), launch.initramfs.absolute(), None, ())
        kernel = confinement.readable(launch.kernel)
        stack.callback(os.close, kernel)
        initramfs = confinement.readable(launch.initramfs)
        stack.callback(os.close, initramfs)
        base = os.open(qemu_disk.base_of(launch.directory), os.O_RDONLY | os.O_CLOEXEC)
        stack.callback(os.close, base)
        return cls(
            Path(f"/proc/self/fd/{kernel}"),
            Path(f"/proc/self/fd/{initramfs}"),
            base,
            (kernel, initramfs, base),
        )


def _opened(disk: DataDisk, stack: contextlib.ExitStack) -> Data:
    """Open as long as `stack`."""
    descriptor = os.open(disk.file, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    stack.callback(os.close, descriptor)
    return Data(serial=disk.serial, descriptor=descriptor)


def _must_be_files(launch: LaunchSpec) -> None:
    for field, path in (
        ("kernel_image_path", launch.kernel),
        ("initramfs", launch.initramfs),
        ("rootfs_path", launch.base_disk),
        *(("disks", disk.file) for disk in launch.disks),
    ):
        if not path.is_file():
            raise ValidationError(f"{field}: there is no file {path}")


def _must_fit(mib: int) -> None:
    """Refuses what would have the host's kernel kill machines that run."""
    meminfo = dict(line.split(":", 1) for line in _MEMINFO.read_text().splitlines())
    free = int(meminfo["MemAvailable"].split()[0]) >> 10
    if mib > free:
        raise CapacityError(f"memory: {mib} MiB are needed, the host has {free} MiB to give")


async def _make_template(templates: Templates, shape: Shape) -> None:
    """See `driver.Recipe.make`."""
    _must_fit(shape.mem_size_mib)
    try:
        await templates.prepare(shape)
    except OSError as error:
        raise GuestError(f"its files can't be read: {error}") from error


async def _line_of(shape: Shape) -> saved_memory.Line:
    """How QEMU is called for it; raises as `Shape.line_key`."""
    return saved_memory.Line(key=await asyncio.to_thread(shape.line_key), mtus=shape.mtus)


def _describe(ended: Exit) -> str:
    if ended.code is not None:
        return f"exit status {ended.code}"
    if ended.signal is not None:
        return f"killed by signal {ended.signal}"
    return "ended"
