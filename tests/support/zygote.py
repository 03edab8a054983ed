"""A Python that has loaded what a server loads, and forks: its servers come up in half the time.

For tests that start servers by the hundred, where how one is started is not the point. A server
of it is what `hyperfleet serve` is, but for its parent and its command line.

Run as a program it is that Python, and takes its orders from the socket that it is given.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

# Bytes of one order: a folder and an environment.
_ORDER = 64 * 1024


class Forked:
    """A server's process; what `subprocess.Popen` has of it."""

    def __init__(self, told: socket.socket) -> None:
        """`told`: its pid comes from there, and in the end its exit status, a line each."""
        self._told = told.makefile("r")
        told.close()
        self.pid = int(self._told.readline())
        self.returncode: int | None = None
        self._ended = threading.Thread(target=self._end, daemon=True)
        self._ended.start()

    def poll(self) -> int | None:
        """Its exit status, as `subprocess` gives it; None while it runs."""
        return self.returncode

    def wait(self, timeout: float) -> int:
        """Waits for its end; its exit status.

        Raises:
            subprocess.TimeoutExpired: it has not ended within `timeout` seconds.
        """
        self._ended.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("a forked server", timeout)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Unless it has ended."""
        if self.returncode is None:
            os.kill(self.pid, number)

    def _end(self) -> None:
        with self._told:
            self.returncode = int(self._told.readline())


class Zygote:
    """Starts servers until it is closed; those that run then run on."""

    def __init__(self) -> None:
        self._orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                # Not from its folder: what is called `server` there is not what is meant here.
                [sys.executable, "-P", __file__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )

    def serve(self, folder: Path, environment: Mapping[str, str], log: int) -> Forked:
        """`hyperfleet serve` in a folder; what it prints goes to the descriptor `log`."""
        ours, theirs = socket.socketpair()
        order = json.dumps([os.fspath(folder), dict(environment)]).encode()
        assert len(order) <= _ORDER
        with theirs:
            socket.send_fds(self._orders, [order], [theirs.fileno(), log])
        return Forked(ours)

    def close(self) -> None:
        """No more servers."""
        self._orders.close()
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _run(orders: socket.socket) -> None:
    """Forks a server for each order; returns in it, ready to serve, or when no more come."""
    from hyperfleet import garbage  # noqa: PLC0415

    with garbage.lasting(tidy=False):
        import hyperfleet.server.backend  # noqa: PLC0415
        import hyperfleet.server.serve  # noqa: PLC0415
        import hyperfleet.store.upgrade  # noqa: F401, PLC0415
        from hyperfleet.cli import serving  # noqa: PLC0415

    # Who waits for a server is not waited for.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        order, descriptors, _, _ = socket.recv_fds(orders, _ORDER, 2)
        if not order:
            return
        if os.fork() == 0:
            break
        for descriptor in descriptors:
            os.close(descriptor)
    orders.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    told, log = descriptors
    pid = os.fork()
    if pid:
        _tell(told, pid)
    os.close(told)
    folder, environment = json.loads(order)
    _become(folder, environment, log)
    sys.exit(serving.serve())


def _tell(told: int, pid: int) -> Any:
    """Tells a server's pid and how it ended, and is gone."""
    with socket.socket(fileno=told) as to:
        to.sendall(b"%d\n" % pid)
        _, status = os.waitpid(pid, 0)
        to.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))
    os._exit(0)


def _become(folder: str, environment: dict[str, str], log: int) -> None:
    """What a process started by itself there would be."""
    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    with Path(os.devnull).open() as nothing:
        os.dup2(nothing.fileno(), 0)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.close(log)
    sys.argv = ["hyperfleet", "serve"]


if __name__ == "__main__":
    _run(socket.socket(fileno=int(sys.argv[1])))
