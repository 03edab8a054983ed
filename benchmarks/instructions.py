"""Instructions that a request takes in user space, as callgrind(1) counts them.

Counting begins when everything is warm, so what starting and loading take is not in it.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import socket
import subprocess
from dataclasses import replace
from pathlib import Path

from benchmarks.control import ControlPlane, frames, machine_id
from benchmarks.peers import CONTROL, HOST, controlled
from benchmarks.processes import Proxy
from benchmarks.setting import Setting
from hyperfleet.proxy import routes
from hyperfleet.wire import control

# Machines that are asked, in turn, whatever the table holds besides.
ASKED = 10
_REQUESTS = 400
_LIMIT = 60.0
_PATH = "/bytes/100"
# How valgrind is told something, in the proxy's folder.
_PIPES = "vgdb"


def of_a_request(setting: Setting, upstream: int, machines: list[control.Machine]) -> float:
    """Instructions for a small GET with these machines in the table.

    The first `ASKED` of them are asked.

    Raises:
        RuntimeError: valgrind does not do its work here.
    """
    under = (
        *_as_nobody(),
        "valgrind",
        "--quiet",
        "--tool=callgrind",
        # Before it is told, the program runs several times faster.
        "--instr-atstart=no",
        "--callgrind-out-file=@folder@/callgrind",
        f"--vgdb-prefix=@folder@/{_PIPES}",
    )
    # Valgrind makes calls of its own, which the proxy's filter would forbid.
    ours = controlled(setting.ours, under, ("--seccomp", "false"))
    proxy = Proxy(ours, upstream, setting.plan.proxy_cpu, setting.plan.descriptors)
    folder = proxy.place.folder
    # A checkout may be where nobody else can look.
    program = Path(shutil.copy(ours.program, folder))
    proxy.peer = replace(ours, program=program)
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    with (
        proxy,
        ControlPlane(folder / CONTROL) as plane,
        socket.create_connection((HOST, proxy.place.port), timeout=_LIMIT) as client,
    ):
        plane.send(frames(routes.snapshot(machines, 1)))
        plane.wait_applied(1)
        _tell(proxy, "instrumentation", "on")
        _ask(client, ASKED * 2)
        _tell(proxy, "zero")
        _ask(client, _REQUESTS)
        _tell(proxy, "dump")
        (dump,) = folder.glob("callgrind.1")
        return counted(dump.read_text()) / _REQUESTS


def counted(dump: str) -> int:
    """The instructions in one of callgrind's dumps.

    Raises:
        RuntimeError: it says nothing of them.
    """
    found = re.search(r"^(?:summary|totals): (\d+)", dump, re.MULTILINE)
    if found is None:
        msg = "callgrind's dump has no total"
        raise RuntimeError(msg)
    return int(found[1])


def _ask(client: socket.socket, count: int) -> None:
    """One request after the other, to each of the machines in turn."""
    for number in range(count):
        target = f"/proxy/{machine_id(number % ASKED)}/80{_PATH}"
        client.sendall(f"GET {target} HTTP/1.1\r\nHost: bench.test\r\n\r\n".encode())
        answer = b""
        while not answer.partition(b"\r\n\r\n")[2][99:]:
            got = client.recv(1 << 16)
            if not got:
                msg = "the proxy closed the connection"
                raise RuntimeError(msg)
            answer += got
        if not answer.startswith(b"HTTP/1.1 200 "):
            msg = f"GET {target}: {answer[:200]!r}"
            raise RuntimeError(msg)


def _tell(proxy: Proxy, *words: str) -> None:
    """Gives callgrind one of its monitor commands.

    Raises:
        RuntimeError: it did not take it.
    """
    prefix = f"--vgdb-prefix={proxy.place.folder / _PIPES}"
    command = [*_as_nobody(), "vgdb", prefix, f"--pid={proxy.pids[0]}", *words]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT, check=False)
    except subprocess.TimeoutExpired:
        msg = f"{' '.join(words)}: vgdb has no answer from valgrind"
        raise RuntimeError(msg) from None
    if run.returncode:
        msg = f"{' '.join(words)}: {run.stdout}{run.stderr}"
        raise RuntimeError(msg)


def _as_nobody() -> tuple[str, ...]:
    """The words before a command that give up root, if there is root to give up.

    The proxy would do so itself, and what valgrind opened as root would then be closed to it.
    """
    if os.geteuid() != 0:
        return ()
    nobody = pwd.getpwnam("nobody")
    ids = (f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}")
    return ("setpriv", *ids, "--clear-groups")
