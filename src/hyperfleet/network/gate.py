"""A machine's way out without root: passt, and our gate before it.

passt (passt(1)) makes the guest's connections as a process of the host, to whatever address a frame
names: a guest that names 127.0.0.1 reaches what listens there. So QEMU speaks to `hyperfleet-gate`,
which lets nothing through that is for the host, save ports that are let in.

The gate and passt live as long as QEMU has its end of their stream, so they outlive the control
plane with it and end with it, and nothing of them has to be found again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from hyperfleet.errors import GuestError, SetupError

# An unlikely choice: a guest does not reach what the host's own networks have at these addresses.
ADDRESS = "10.213.77.15/24"
GATEWAY = "10.213.77.2"
DNS = "10.213.77.3"

LOG = "gate.log"
_READY = "ready"
# passt without a system logger says so again and again.
_NOISE = "Failed to send"
_LOG_BYTES = 4096
# Both end as soon as their stream does; a host that is busy takes longer.
_END_S = 10.0
_KEPT_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH")


class Gates:
    """Makes ways out. `program`: where the gate is."""

    def __init__(
        self,
        program: Callable[[], Path],
        *,
        host_ports: tuple[int, ...] = (),
        passt: str = "passt",
    ) -> None:
        """`host_ports`: TCP ports of the host's loopback that guests reach at `GATEWAY`."""
        self._program = program
        self._host_ports = host_ports
        self._passt = passt
        # Our own children, by their machines' directories; others' are nobody's to reap here.
        self._children: dict[Path, _Child] = {}

    async def open(self, directory: Path, mac: str, cgroup: Path | None = None) -> int:
        """A way out for the card `mac`: the stream that QEMU is to inherit, a descriptor.

        It is the caller's to close. `directory`: the machine's, for the gate's words; `cgroup`: the
        machine's, if it has one.

        Raises:
            GuestError: there can be none; the message says why, and what to do.
        """
        opening = asyncio.ensure_future(asyncio.to_thread(self._open, directory, mac, cgroup))
        try:
            stream, pid = await asyncio.shield(opening)
        except asyncio.CancelledError:
            # A thread can't be called back. With its stream the gate ends.
            await asyncio.wait((opening,))
            if opening.exception() is None:
                stream, pid = opening.result()
                stream.close()
                self._children[directory] = _Child(pid)
            raise
        self._children[directory] = _Child(pid)
        return stream.detach()

    async def ended(self, directory: Path) -> None:
        """Returns when a machine's way out, which nobody holds any more, is gone."""
        child = self._children.pop(directory, None)
        if child is None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_END_S):
                await child.ended.wait()
        child.close()

    def close(self) -> None:
        """Lets go of those that run."""
        for child in self._children.values():
            child.close()
        self._children.clear()

    def _open(self, directory: Path, mac: str, cgroup: Path | None) -> tuple[socket.socket, int]:
        passt = shutil.which(self._passt)
        if passt is None:
            raise GuestError("passt is not installed (Debian: passt)")
        try:
            program = self._program()
        except SetupError as error:
            raise GuestError(str(error)) from error
        command = [str(program), "--passt", passt, "--mac", mac, "--address", ADDRESS]
        command += ["--gateway", GATEWAY, "--dns", DNS]
        for port in self._host_ports:
            command += ["--host-port", str(port)]
        if os.geteuid() == 0:
            command += ["--user", _nobody()]
        if cgroup is not None:
            command += ["--cgroup", str(cgroup)]
        ours, theirs = socket.socketpair()
        reads, writes = os.pipe()
        said = os.fdopen(reads, "rb")
        with contextlib.ExitStack() as stack:
            stack.enter_context(theirs)
            stack.callback(os.close, writes)
            log: BinaryIO = stack.enter_context((directory / LOG).open("wb"))
            child = subprocess.Popen(
                command,
                cwd=directory,
                env={name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ},
                stdin=theirs.fileno(),
                stdout=writes,
                stderr=log,
                start_new_session=True,
            )
        # It says one line, and gives up by itself when passt does not answer.
        with said:
            line = said.readline().decode(errors="replace").strip()
        if line == _READY:
            # Popen's finaliser would complain of a child that nobody waited for.
            child.returncode = 0
            return ours, child.pid
        ours.close()
        child.wait()
        raise GuestError(_why(line, directory / LOG))


class _Child:
    """A gate of our own that is reaped at its end. Needs a running event loop."""

    def __init__(self, pid: int) -> None:
        self.ended = asyncio.Event()
        self._pidfd = os.pidfd_open(pid)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._pidfd, self._on_end)

    def close(self) -> None:
        """Lets go of it."""
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    def _on_end(self) -> None:
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)
        self.close()
        self.ended.set()


def _nobody() -> str:
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        return "65534:65534"
    return f"{entry.pw_uid}:{entry.pw_gid}"


def _why(line: str, log: Path) -> str:
    """What the gate said, and passt's own last words."""
    with contextlib.suppress(OSError):
        text = log.read_bytes()[-_LOG_BYTES:].decode(errors="replace")
        # The last line is the gate's own.
        words = [each for each in text.splitlines() if each.strip() and _NOISE not in each][:-1]
        if words:
            return f"{line}: {words[-1].strip()}"
    return line or "the gate ended without a word"
