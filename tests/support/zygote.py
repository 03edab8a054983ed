"""A Python that has loaded what a server loads, and forks: its servers come up in half the time.

For tests that start servers by the hundred, where how one is started is not the point. A server
of it is what `hyperfleet serve` is, but for its parent and its command line.

Run as a program it is that Python, and takes its orders from the socket that it is given.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

# Bytes of one order: a folder and an environment.
_ORDER = 64 * 1024


class Forked:
    """A server's process; what `subprocess.Popen` has of it."""

    def __init__(self, told: socket.socket) -> None:
        """`told`: its pid comes from there, and in the end its exit status, a line each.

        Until that is closed it keeps its pid.
        """
        self._told = told.makefile("r")
        told.close()
        self.pid = int(self._told.readline())
        self.returncode: int | None = None
        self._keeps_pid = threading.Lock()
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
        with self._keeps_pid:
            if self.returncode is None:
                os.kill(self.pid, number)

    def _end(self) -> None:
        with self._told:
            code = int(self._told.readline())
            with self._keeps_pid:
                self.returncode = code


class Zygote:
    """Starts servers until it is closed; those that run then run on."""

    def __init__(self, program: Path | None = None) -> None:
        """`program`: a file whose `main()` is what a server of it does, not `hyperfleet serve`."""
        self._orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                # Not from its folder: what is called `server` there is not what is meant here.
                [
                    *(sys.executable, "-P", "-W", "error", __file__, str(theirs.fileno())),
                    *([] if program is None else [program]),
                ],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )

    def serve(
        self, folder: Path, environment: Mapping[str, str], out: int, errors: int | None = None
    ) -> Forked:
        """A server in a folder.

        What it prints goes to the descriptor `out`, and to `errors`, if it is to be apart.
        """
        # Else nobody would reach it, and its test would find that out after a minute.
        networks = {_network("thread-self"), _network(str(self._process.pid))}
        assert len(networks) == 1, "this thread is on another network than the zygote"
        ours, theirs = socket.socketpair()
        order = json.dumps([os.fspath(folder), dict(environment)]).encode()
        assert len(order) <= _ORDER
        with theirs:
            streams = [out, out if errors is None else errors]
            socket.send_fds(self._orders, [order], [theirs.fileno(), *streams])
        return Forked(ours)

    def close(self) -> None:
        """No more servers."""
        self._orders.close()
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _network(process: str) -> Path:
    """Which network namespace it is in (namespaces(7))."""
    return Path(f"/proc/{process}/ns/net").readlink()


def _load() -> Callable[[], int]:
    """Loads what `hyperfleet serve` does; what is left is to call it."""
    from hyperfleet import garbage  # noqa: PLC0415

    with garbage.lasting(tidy=False):
        import hyperfleet.server.backend  # noqa: PLC0415
        import hyperfleet.server.serve  # noqa: PLC0415
        import hyperfleet.store.upgrade  # noqa: F401, PLC0415
        from hyperfleet.cli import serving  # noqa: PLC0415
    return serving.serve


def _load_program(program: str) -> Callable[[], int]:
    """The same of a program that has a `main()`."""
    found = importlib.util.spec_from_file_location("program", program)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    main: Callable[[], int] = module.main
    return main


def _run(orders: socket.socket, serve: Callable[[], int]) -> None:
    """Forks a server for each order, and serves in it; returns when no more come."""
    # Who waits for a server is not waited for.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        order, descriptors, _, _ = socket.recv_fds(orders, _ORDER, 3)
        if not order:
            return
        if os.fork() == 0:
            break
        for descriptor in descriptors:
            os.close(descriptor)
    orders.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    told, *streams = descriptors
    pid = os.fork()
    if pid:
        for stream in streams:
            os.close(stream)
        _tell(told, pid)
    os.close(told)
    folder, environment = json.loads(order)
    _become(folder, environment, streams)
    sys.exit(serve())


def _tell(told: int, pid: int) -> Any:
    """Tells a server's pid and how it ended, and is gone."""
    with socket.socket(fileno=told) as to:
        to.sendall(b"%d\n" % pid)
        ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert ended is not None
        status = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
        with contextlib.suppress(OSError):
            to.sendall(b"%d\n" % status)
            # Nobody can mean another process by its pid until it is known to have ended.
            to.recv(1)
    os._exit(0)


def _become(folder: str, environment: dict[str, str], streams: list[int]) -> None:
    """What a process started by itself there would be."""
    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    with Path(os.devnull).open() as nothing:
        os.dup2(nothing.fileno(), 0)
    for number, stream in enumerate(streams, 1):
        os.dup2(stream, number)
        os.close(stream)
    sys.argv = ["hyperfleet", "serve"]


if __name__ == "__main__":
    number, *programs = sys.argv[1:]
    serves = _load_program(programs[0]) if programs else _load()
    with socket.socket(fileno=int(number)) as orders_given:
        _run(orders_given, serves)
