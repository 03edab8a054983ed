"""What a host shows of a home: read from /proc, the folder and the database."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from support import sockets
from support.server import Server
from support.soak.checks import Reality

_NAME = re.compile(rb"-name\0hyperfleet-([^\0]+)\0")


def seen(server: Server) -> Reality:
    """All of it; the control plane must be ready and nothing under way."""
    machines = listed(server)
    qemus = qemus_in(server.home)
    root = server.home / "machines"
    snapshots = server.api.get("/snapshots").json()["snapshots"]
    return Reality(
        machines=tuple(machines),
        rows=_rows(server.folder / "hyperfleet.db"),
        qemus=qemus,
        folders=_names(root),
        sockets=frozenset(_sockets(root)),
        forwards={pid: _listening(pid) for pid in qemus},
        snapshots=frozenset(one["name"] for one in snapshots),
        kept=_names(server.home / "snapshots"),
    )


def listed(server: Server) -> list[dict[str, Any]]:
    """Every machine as the API lists it."""
    found: list[dict[str, Any]] = []
    while True:
        query = {"limit": "100", "offset": str(len(found))}
        answer = server.api.get("/machines", params=query).json()
        found += answer["machines"]
        if len(found) >= answer["total"]:
            return found


def qemus_in(home: Path) -> dict[int, str]:
    """The machines' processes that run in a home: pid to machine."""
    found = {}
    # A template that is being made is none, and runs elsewhere.
    machines = home.resolve() / "machines"
    for entry in _processes():
        with contextlib.suppress(OSError):
            match = _NAME.search((entry / "cmdline").read_bytes())
            if match and (entry / "cwd").readlink().is_relative_to(machines):
                found[int(entry.name)] = match[1].decode()
    return found


def data_planes_in(home: Path) -> list[int]:
    """Processes of the data plane that run in a home."""
    found = []
    for entry in _processes():
        with contextlib.suppress(OSError):
            program = (entry / "cmdline").read_bytes().split(b"\0")[0]
            here = (entry / "cwd").readlink() == home.resolve()
            if here and program.endswith(b"hyperfleet-proxy"):
                found.append(int(entry.name))
    return found


def memory(pid: int) -> int:
    """Bytes that a process takes, what it shares divided (proc(5), smaps_rollup)."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def _processes() -> Iterator[Path]:
    return (entry for entry in Path("/proc").iterdir() if entry.name.isdigit())


def _names(folder: Path) -> frozenset[str]:
    return frozenset(one.name for one in folder.iterdir()) if folder.exists() else frozenset()


def _rows(file: Path) -> dict[str, tuple[str, int | None]]:
    with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database:
        rows = database.execute("SELECT id, status, pid FROM machines").fetchall()
    return {row[0]: (row[1], row[2]) for row in rows}


def _sockets(root: Path) -> Iterator[str]:
    for line in Path("/proc/net/unix").read_text().splitlines():
        path = line.split(maxsplit=7)[-1]
        if path.startswith(f"{root}/"):
            yield path.removeprefix(f"{root}/")


def _listening(pid: int) -> int:
    """How many TCP sockets a process listens on."""
    own = set()
    with contextlib.suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                own.add(str(link.readlink()))
    table = Path(f"/proc/{pid}/net/tcp")
    listening = sockets.listening(table) if table.exists() else []
    return sum(f"socket:[{one.inode}]" in own for one in listening)
