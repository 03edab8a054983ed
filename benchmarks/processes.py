"""One proxy as processes of the system: started, pinned to a CPU, its CPU time and its memory.

All figures are the kernel's own accounting (proc(5)), over every thread of every process of it.
"""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.peers import HOST, Peer, Place
from support.ports import free_port

_PROC = Path("/proc")
_START_LIMIT = 20.0
_STOP_LIMIT = 10.0
# The kind of clock that counts what a process ran (include/linux/posix-timers_types.h).
_CPUCLOCK_SCHED = 2


class Proxy:
    """A running proxy. Use it as a context: at its end nothing of it is left."""

    def __init__(self, peer: Peer, upstream_port: int, cpu: int | None, descriptors: int) -> None:
        """`cpu`: the one that it may use; `None` leaves it to the system."""
        self.peer = peer
        self._folder = tempfile.TemporaryDirectory(prefix="hyperfleet-bench-")
        self.place = Place(Path(self._folder.name), free_port(), upstream_port, descriptors)
        self._process: subprocess.Popen[bytes] | None = None
        self._cpu = cpu
        self._log = self.place.folder / "log"

    def __enter__(self) -> Self:
        # What gives up root, as nginx does, must reach its own folder.
        self.place.folder.chmod(0o755)
        command = [*pinned(self._cpu), *self.peer.command(self.peer, self.place)]
        environment = {**os.environ, "HOME": str(self.place.folder), **self.peer.environment}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
            )
        try:
            self._wait()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is not None:
            stop(self._process)
            self._process = None
        self._folder.cleanup()

    def cpu_seconds(self) -> float:
        """CPU time so far, of all its threads, in user space and in the kernel."""
        return sum(cpu_nanoseconds(pid) for pid in self._family()) / 1e9

    def ticks(self) -> tuple[int, int]:
        """CPU time so far in user space and in the kernel, as the clock's tick found it.

        Coarse: for the shares of both, not for either.
        """
        both = [_ticks(pid) for pid in self._family()]
        return sum(user for user, _ in both), sum(kernel for _, kernel in both)

    def private_memory(self) -> int:
        """Bytes of memory that nobody else shares."""
        return sum(rolled_up(pid, "Private_") for pid in self._family())

    @property
    def pids(self) -> list[int]:
        """Its processes, the first one first."""
        return self._family()

    def memory(self) -> int:
        """Bytes of memory that it takes now, shared pages divided among those who share them."""
        return sum(rolled_up(pid, "Pss:") for pid in self._family())

    def _family(self) -> list[int]:
        return family(self._running().pid, _parents())

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            msg = f"{self.peer.title} does not run"
            raise RuntimeError(msg)
        return self._process

    def _wait(self) -> None:
        """Until it takes connections.

        Raises:
            RuntimeError: it ended, or never did; with what it said.
        """
        process = self._running()
        limit = time.monotonic() + _START_LIMIT
        while process.poll() is None and time.monotonic() < limit:
            with socket.socket() as trial:
                if trial.connect_ex((HOST, self.place.port)) == 0:
                    return
            # Nothing tells when a server of somebody else's begins to listen.
            time.sleep(0.02)
        said = self._log.read_text(errors="replace")[-2000:]
        msg = f"{self.peer.title} does not serve:\n{said}"
        raise RuntimeError(msg)


def pinned(cpu: int | None) -> list[str]:
    """The words before a command that let it use one CPU only."""
    return [] if cpu is None else ["taskset", "-c", str(cpu)]


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ends a process that we started: asked, then forced."""
    process.terminate()
    try:
        process.wait(_STOP_LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def family(first: int, parents: dict[int, int]) -> list[int]:
    """`first` and every process below it; `parents` gives each process' parent."""
    found = [first]
    for pid in found:
        found.extend(child for child, parent in parents.items() if parent == pid)
    return found


@contextmanager
def running(proxies: list[Proxy]) -> Iterator[list[Proxy]]:
    """Starts them all, and ends them all."""
    with ExitStack() as stack:
        yield [stack.enter_context(proxy) for proxy in proxies]


def _parents() -> dict[int, int]:
    parents = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            # The name, in parentheses, may hold anything.
            parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
    return parents


def cpu_nanoseconds(pid: int) -> int:
    """CPU time of all its threads, those that have ended among them: exact, unlike stat's ticks.

    Its clock's number is what clock_getcpuclockid(3) would give.
    """
    return time.clock_gettime_ns((~pid << 3) | _CPUCLOCK_SCHED)


def _ticks(pid: int) -> tuple[int, int]:
    # The name, in parentheses, may hold anything; fields 14 and 15 are the times.
    fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return int(fields[11]), int(fields[12])


def rolled_up(pid: int, name: str) -> int:
    """Bytes, of all lines whose name begins with `name`."""
    lines = (_PROC / str(pid) / "smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))
