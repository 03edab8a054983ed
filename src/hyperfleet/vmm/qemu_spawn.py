"""Processes of QEMU: each runs in a directory of its own, and is found again by it and its name."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import msgspec

from hyperfleet import unix_sockets
from hyperfleet.errors import GuestError
from hyperfleet.failpoints import Point, reach
from hyperfleet.vmm import confinement, qemu_command, shortage
from hyperfleet.vmm.confinement import User
from hyperfleet.vmm.host_process import HostProcess
from hyperfleet.vmm.qemu_command import Sockets

PID_FILE = "qemu.pid"
QMP_SOCKET = "qmp.sock"
AGENT_SOCKET = "agent.sock"
_LOG = "qemu.log"
_LOG_TAIL_BYTES = 2000
# A process is nobody's while the kernel puts another program into it: so often it is asked again,
# and for so long, in seconds. Reading QEMU from a slow disk is the longest part of it.
_EXEC_AGAIN_S = 0.002
_EXEC_S = 5.0
# QEMU sees its environment; ours may hold secrets.
_KEPT_ENVIRONMENT = ("PATH", "TMPDIR", "XDG_RUNTIME_DIR", "LD_LIBRARY_PATH")


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where and as whom a process of QEMU runs.

    `id` makes its name. `before`: what stands before its command line. `files`: of the directory,
    that `user` may write to.
    """

    id: str
    directory: Path
    before: list[str]
    user: User | None
    files: tuple[str, ...]


def spawn(place: Place, command: Callable[[Sockets], list[str]], inherited: tuple[int, ...]) -> int:
    """Starts QEMU in a session of its own; its pid. Blocks until the program is loaded.

    The child is the caller's to reap, by pidfd. `inherited`: descriptors that `command` names.

    Raises:
        GuestError: QEMU is not installed.
        CapacityError: the host has no room, descriptors or processes left.
    """
    directory = place.directory
    with contextlib.ExitStack() as stack:
        stack.enter_context(shortage.told(directory))
        # Listening before QEMU runs: a connection waits for it in the backlog, nobody polls.
        qmp = stack.enter_context(unix_sockets.listen(directory / QMP_SOCKET))
        agent = stack.enter_context(unix_sockets.listen(directory / AGENT_SOCKET))
        log: BinaryIO = stack.enter_context((directory / _LOG).open("wb"))
        words = command(Sockets(qmp=qmp.fileno(), agent=agent.fileno()))
        if shutil.which(words[0]) is None:
            raise GuestError(f"{words[0]} is not installed (Debian: qemu-system-x86)")
        if place.user is not None:
            confinement.hand_over(directory, place.files, place.user)
        child = subprocess.Popen(
            [*place.before, *words],
            cwd=directory,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(qmp.fileno(), agent.fileno(), *inherited),
            start_new_session=True,
        )
    reach(Point.SPAWN_DONE)
    # Popen's finaliser would complain of a child that nobody waited for.
    child.returncode = 0
    # Finds it at once; without it all processes are looked through.
    with contextlib.suppress(OSError):
        (directory / PID_FILE).write_text(f"{child.pid}\n")
    return child.pid


async def spawned(spawning: Callable[[], int]) -> HostProcess:
    """What `spawning`, run in a thread, has started, held."""
    doing = asyncio.ensure_future(asyncio.to_thread(spawning))
    try:
        pid = await asyncio.shield(doing)
    except asyncio.CancelledError:
        # A thread can't be called back. Once it is done, `find` finds the process.
        await asyncio.wait((doing,))
        raise
    return HostProcess(pid)


async def find(machine_id: str, directory: Path) -> HostProcess | None:
    """The process that runs there, whoever started it; None: there is none."""
    loop = asyncio.get_running_loop()
    until = loop.time() + _EXEC_S
    while True:
        pid = _pid_in(directory / PID_FILE)
        if pid is not None and (host := _hold(pid, machine_id, directory)) is not None:
            return host
        # A control plane may have been killed before it wrote that down.
        found, changing = await asyncio.to_thread(_pids_of, machine_id, directory)
        for pid in found:
            if (host := _hold(pid, machine_id, directory)) is not None:
                return host
        if not (found or changing) or loop.time() > until:
            return None
        await asyncio.sleep(_EXEC_AGAIN_S)


def clear(directory: Path) -> None:
    """Removes what a process that has ended has no use for."""
    for name in (PID_FILE, QMP_SOCKET, AGENT_SOCKET):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            (directory / name).unlink()


def last_words(directory: Path) -> str:
    """What QEMU last said there."""
    try:
        data = (directory / _LOG).read_bytes()
    except OSError:
        return ""
    return data[-_LOG_TAIL_BYTES:].decode(errors="replace").strip()


def environment() -> dict[str, str]:
    """What QEMU and its tools see of ours."""
    kept = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
    return {**kept, "LC_ALL": "C.UTF-8"}


def _hold(pid: int, machine_id: str, directory: Path) -> HostProcess | None:
    """The process, if it is the machine's.

    First held, then looked at: if it ended in between and its pid went to another process, that
    other one is not the machine's either, so what passes the look is what is held.
    """
    try:
        host = HostProcess(pid)
    except ProcessLookupError:
        return None
    if _is_of(pid, machine_id, directory):
        return host
    host.release()
    return None


def _is_of(pid: int, machine_id: str, directory: Path) -> bool | None:
    """Whether a process has the machine's name and runs in its directory.

    The directory too, because a copied home has the same machines. None: it runs there and has no
    name at all, as in the middle of execve(2).
    """
    name = qemu_command.process_name(machine_id).encode()
    try:
        line = Path(f"/proc/{pid}/cmdline").read_bytes()
        named = (b"-name", name) in itertools.pairwise(line.split(b"\0"))
        if (line and not named) or not Path(f"/proc/{pid}/cwd").samefile(directory):
            return False
    except OSError:
        return False
    return True if named else None


def _pids_of(machine_id: str, directory: Path) -> tuple[list[int], bool]:
    """The machine's processes, and whether one there is becoming another program."""
    pids = [int(entry.name) for entry in os.scandir("/proc") if entry.name.isdigit()]
    judged = [(pid, _is_of(pid, machine_id, directory)) for pid in pids]
    return [pid for pid, ours in judged if ours], any(ours is None for _, ours in judged)


def _pid_in(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
