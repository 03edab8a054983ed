"""The QEMU driver: `-M microvm` processes that outlive the control plane.

All that belongs to a machine lies in its directory: disk, console, pid file, the sockets of QMP and
of the agent, QEMU's own words. The process is found again by its pid file and its command line.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import msgspec

from hyperfleet import unix_sockets
from hyperfleet.errors import CapacityError, GuestError, ValidationError
from hyperfleet.failpoints import Point, reach
from hyperfleet.network.interface import Joint, Networks
from hyperfleet.vmm import confinement, qemu_command, qemu_disk, shortage, tsc
from hyperfleet.vmm.driver import Exit, LaunchSpec
from hyperfleet.vmm.host_process import HostProcess
from hyperfleet.vmm.qemu_process import AGENT_SOCKET, QMP_SOCKET, QemuProcess

_log = logging.getLogger(__name__)

_MEMINFO = Path("/proc/meminfo")
_LOG = "qemu.log"
PID_FILE = "qemu.pid"
# What QEMU writes to in the machine's directory.
_OWN_FILES = (qemu_disk.DISK, qemu_command.CONSOLE)
_LOG_TAIL_BYTES = 2000
# QEMU sees its environment; ours may hold secrets.
_KEPT_ENVIRONMENT = ("PATH", "TMPDIR", "XDG_RUNTIME_DIR", "LD_LIBRARY_PATH")


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
    ) -> None:
        """`kvm`: whether it really runs here; else TCG, ten times slower.

        `confine`: where `hyperfleet-confine` is.
        """
        self._networks = networks
        self._confine = confine
        self._kvm = kvm
        self._qemu = qemu
        self._qemu_img = qemu_img

    def warm_up(self) -> None:
        """Measures what the first start would otherwise wait for. Blocks for a second."""
        if os.geteuid() == 0 and not confinement.is_mapped():
            _log.warning(
                "this user namespace has no users for machines: they run as the server's own user"
            )
        if not self._kvm:
            tsc.tsc_khz()

    async def start(self, launch: LaunchSpec) -> QemuProcess:
        """See `driver.Driver.start`. A process that is left from before is ended first."""
        await self.sweep(launch)
        _must_be_files(launch)
        _must_fit(launch.mem_size_mib)
        khz = None if self._kvm else await asyncio.to_thread(tsc.tsc_khz)
        await asyncio.to_thread(self._prepare_directory, launch)
        joint = await self._networks.of(launch.network).attach(launch)
        reach(Point.SPAWN_READY)
        spawned = asyncio.ensure_future(asyncio.to_thread(self._spawn, launch, khz, joint))
        try:
            pid = await asyncio.shield(spawned)
        except asyncio.CancelledError:
            # A thread can't be called back. Once it is done, `sweep` and `adopt` find the process.
            await asyncio.wait((spawned,))
            raise
        host = HostProcess(pid)
        try:
            return await QemuProcess.connect(host, launch, self._networks.of(launch.network))
        except GuestError as error:
            ended = _describe(await host.kill())
            words = await asyncio.to_thread(_last_words, launch.directory)
            if shortage.is_no_room(words):
                raise CapacityError(f"{launch.directory}: {words}") from error
            raise GuestError(f"QEMU would not start ({ended}): {words or error}") from error
        except BaseException:
            await host.kill()
            raise

    async def adopt(self, launch: LaunchSpec) -> QemuProcess | None:
        """See `driver.Driver.adopt`."""
        host = await self._find(launch)
        if host is None:
            return None
        try:
            return await QemuProcess.connect(host, launch, self._networks.of(launch.network))
        except BaseException:
            host.release()
            raise

    async def sweep(self, launch: LaunchSpec) -> None:
        """See `driver.Driver.sweep`."""
        if (host := await self._find(launch)) is not None:
            await host.kill()
        await self._networks.of(launch.network).detach(launch)
        for name in (PID_FILE, QMP_SOCKET, AGENT_SOCKET):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                (launch.directory / name).unlink()

    async def remove(self, launch: LaunchSpec) -> None:
        """See `driver.Driver.remove`."""
        await self.sweep(launch)
        with contextlib.suppress(FileNotFoundError):
            await asyncio.to_thread(shutil.rmtree, launch.directory)

    def console(self, launch: LaunchSpec) -> Path:
        """The file behind the guest's first serial port; all boots, the last one last."""
        return launch.directory / qemu_command.CONSOLE

    def _prepare_directory(self, launch: LaunchSpec) -> None:
        with shortage.told(launch.directory):
            launch.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            qemu_disk.prepare(
                launch.directory,
                launch.base_disk.absolute(),
                qemu_img=self._qemu_img,
                environment=_environment(),
            )

    def _spawn(self, launch: LaunchSpec, khz: int | None, joint: Joint) -> int:
        """Blocks until the program is loaded; its pid. The child is ours to reap, by pidfd."""
        directory = launch.directory
        with contextlib.ExitStack() as stack:
            for fd in joint.inherited:
                stack.callback(os.close, fd)
            stack.enter_context(shortage.told(directory))
            # Listening before QEMU runs: a connection waits for it in the backlog, nobody polls.
            qmp = stack.enter_context(unix_sockets.listen(directory / QMP_SOCKET))
            agent = stack.enter_context(unix_sockets.listen(directory / AGENT_SOCKET))
            log: BinaryIO = stack.enter_context((directory / _LOG).open("wb"))
            user = confinement.user_of(launch.id, kvm=self._kvm)
            files = _Files.of(launch, user, stack)
            command = qemu_command.command(
                msgspec.structs.replace(launch, kernel=files.kernel, initramfs=files.initramfs),
                qemu=self._qemu,
                kvm=self._kvm,
                tsc_khz=khz,
                sockets=qemu_command.Sockets(qmp=qmp.fileno(), agent=agent.fileno()),
                network=joint.arguments,
                base=files.base,
            )
            before = confinement.prefix(self._confine, user, directory / qemu_disk.DISK)
            if shutil.which(self._qemu) is None:
                raise GuestError(f"{self._qemu} is not installed (Debian: qemu-system-x86)")
            if user is not None:
                confinement.hand_over(directory, _OWN_FILES, user)
            child = subprocess.Popen(
                [*before, *command],
                cwd=directory,
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(qmp.fileno(), agent.fileno(), *joint.inherited, *files.inherited),
                start_new_session=True,
            )
        reach(Point.SPAWN_DONE)
        # Popen's finaliser would complain of a child that nobody waited for.
        child.returncode = 0
        # Finds it at once; without it all processes are looked through.
        with contextlib.suppress(OSError):
            (directory / PID_FILE).write_text(f"{child.pid}\n")
        return child.pid

    async def _find(self, launch: LaunchSpec) -> HostProcess | None:
        pid = _pid_in(launch.directory / PID_FILE)
        if pid is not None and (host := _hold(pid, launch)) is not None:
            return host
        # A control plane may have been killed before it wrote that down.
        for pid in await asyncio.to_thread(_pids_of, launch):
            if (host := _hold(pid, launch)) is not None:
                return host
        return None


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


def _hold(pid: int, launch: LaunchSpec) -> HostProcess | None:
    """The process, if it is the machine's.

    First held, then looked at: if it ended in between and its pid went to another process, that
    other one is not the machine's either, so what passes the look is what is held.
    """
    try:
        host = HostProcess(pid)
    except ProcessLookupError:
        return None
    if _is_of(pid, launch):
        return host
    host.release()
    return None


def _is_of(pid: int, launch: LaunchSpec) -> bool:
    """Whether a process has the machine's name and runs in its directory.

    The directory too, because a copied home has the same machines.
    """
    name = qemu_command.process_name(launch.id).encode()
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        named = (b"-name", name) in itertools.pairwise(arguments)
        return named and Path(f"/proc/{pid}/cwd").samefile(launch.directory)
    except OSError:
        return False


def _pids_of(launch: LaunchSpec) -> list[int]:
    pids = (int(entry.name) for entry in os.scandir("/proc") if entry.name.isdigit())
    return [pid for pid in pids if _is_of(pid, launch)]


def _pid_in(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _must_be_files(launch: LaunchSpec) -> None:
    for field, path in (
        ("kernel_image_path", launch.kernel),
        ("initramfs", launch.initramfs),
        ("rootfs_path", launch.base_disk),
    ):
        if not path.is_file():
            raise ValidationError(f"{field}: there is no file {path}")


def _must_fit(mib: int) -> None:
    """Refuses what would have the host's kernel kill machines that run."""
    meminfo = dict(line.split(":", 1) for line in _MEMINFO.read_text().splitlines())
    free = int(meminfo["MemAvailable"].split()[0]) >> 10
    if mib > free:
        raise CapacityError(f"memory: {mib} MiB are needed, the host has {free} MiB to give")


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
    return {**kept, "LC_ALL": "C.UTF-8"}


def _last_words(directory: Path) -> str:
    try:
        data = (directory / _LOG).read_bytes()
    except OSError:
        return ""
    return data[-_LOG_TAIL_BYTES:].decode(errors="replace").strip()


def _describe(ended: Exit) -> str:
    if ended.code is not None:
        return f"exit status {ended.code}"
    if ended.signal is not None:
        return f"killed by signal {ended.signal}"
    return "ended"
