"""The data plane's process: its command line, its start, its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import struct
import subprocess
from pathlib import Path

import msgspec

from hyperfleet.errors import SettingsError


class DataPlaneConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What the data plane is started with.

    `socket` is its control socket, `log` takes its standard error, `arguments` are what
    `hyperfleet-proxy --help` lists, as pairs of name (without dashes) and value.
    """

    binary: Path
    socket: Path
    log: Path
    bind: str
    port: int
    arguments: tuple[tuple[str, str], ...] = ()

    def pairs(self) -> list[tuple[str, str]]:
        """All settings, named as the data plane names them in its hello."""
        host = f"[{self.bind}]" if ":" in self.bind else self.bind
        return [("listen", f"{host}:{self.port}"), *self.arguments]


def check_port_is_free(bind: str, port: int) -> None:
    """Tries to bind the proxy's port as the data plane will.

    Raises:
        SettingsError: the port is taken or may not be bound.
    """
    family = socket.AF_INET6 if ":" in bind else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((bind, port))
        except OSError as error:
            raise SettingsError(
                f"PROXY_PORT {port} on {bind} can't be used: {error.strerror}."
                " Stop what holds it, or set PROXY_PORT to a free port."
            ) from error


def door(config: DataPlaneConfig) -> Path:
    """The socket at which a data plane that runs hands over to the next."""
    return config.socket.with_name(f"{config.socket.name}.take-over")


def spawn(config: DataPlaneConfig, *, take_over: bool = False) -> subprocess.Popen[bytes]:
    """Starts the data plane in a session of its own, so that it outlives the control plane.

    With `take_over` it takes port and routes over from the one that runs, if there is one.
    """
    config.log.parent.mkdir(parents=True, exist_ok=True)
    config.socket.parent.mkdir(parents=True, exist_ok=True)
    pairs = [*config.pairs(), ("take-over", str(take_over).lower())]
    words = [word for name, value in pairs for word in (f"--{name}", value)]
    with config.log.open("ab") as log:
        return subprocess.Popen(
            # By its bare name: a socket's path holds 107 bytes at most (unix(7)).
            [config.binary.absolute(), *words, "--control", config.socket.name],
            cwd=config.socket.parent,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            close_fds=True,
            env={"PATH": os.environ.get("PATH", os.defpath), "RUST_BACKTRACE": "1"},
        )


def last_line(log: Path) -> str:
    """The last thing the data plane said, for an error message; "" when it said nothing."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
            lines = file.read().decode(errors="replace").split("\n")
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def peer_pid(unix_socket: socket.socket) -> int:
    """The process at the other end of a connected Unix socket (SO_PEERCRED, unix(7))."""
    credentials = unix_socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    pid: int = struct.unpack("iII", credentials)[0]
    return pid


def program_of(pid: int) -> str | None:
    """The name of the program that a process runs, be it a build that was replaced since.

    None if it has ended, reaped or not; "" if it may not be seen.
    """
    try:
        # proc(5): a file that was removed has " (deleted)" after its name.
        name = Path(f"/proc/{pid}/exe").readlink().name
    except (FileNotFoundError, ProcessLookupError):
        # One that ends has let its program go before it is gone.
        return None
    except OSError:
        return ""
    return name.removesuffix(" (deleted)")


async def end(pid: int, *, grace_s: float) -> None:
    """Waits `grace_s` for a process to end by itself, then kills it; returns when it is gone.

    Works for children and for processes that another control plane started.
    """
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if not await _ended(pidfd, grace_s):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            await _ended(pidfd, 5.0)
    finally:
        os.close(pidfd)


async def _ended(pidfd: int, timeout_s: float) -> bool:
    loop = asyncio.get_running_loop()
    gone = asyncio.Event()
    # A pidfd becomes readable when its process ends (pidfd_open(2)).
    loop.add_reader(pidfd, gone.set)
    try:
        await asyncio.wait_for(gone.wait(), timeout_s)
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(pidfd)
    return True
