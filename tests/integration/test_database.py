"""A running server whose database is held, can't be written to, or is broken when it comes again.

The driver is the fake, all else is real; its guests outlive the control plane. A full disk:
test_disk_full.py.
"""

from __future__ import annotations

import contextlib
import os
import resource
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from support import plain, proxy
from support.need import Need
from support.server import Server, hyperfleet
from support.zygote import Zygote

# A page, served from the boot on; the guest outlives the control plane.
GUEST = "fake.survives=true fake.listens=80"
BEFORE = {"runs": "running", "rests": "stopped"}
UNWRITABLE = (503, "CAPACITY")
# Seconds that a writer is seen to wait. Not a limit: what would be wrong is an answer.
WAITS = 0.5


@pytest.fixture(scope="module")
def server(need: Need, zygote: Zygote) -> Iterator[Server]:
    """Each test leaves it as it was."""
    proxy.binary(need)
    with Server(zygote=zygote, HYPERFLEET_VMM="fake") as made:
        for name in BEFORE:
            made.create(name, exposed_ports=[80], kernel_args=GUEST)
            made.start_machine(name)
        assert _asked(made, "POST", "/machines/rests/stop") == (200, "")
        yield made


def test_while_another_program_holds_it_writers_wait_and_readers_do_not(server: Server) -> None:
    with ThreadPoolExecutor() as pool:
        with _held(server):
            begun = time.monotonic()
            # The first to come waits for as long as is bearable, and is then told.
            refused = pool.submit(_asked, server, "PATCH", "/machines/rests", labels={"a": "b"})
            while not refused.done():
                _is_as_before(server)
            assert refused.result() == UNWRITABLE
            seconds = time.monotonic() - begun
            # Whoever comes then waits too, and is served when it is free.
            acts = (("POST", "/machines/runs/stop"), ("POST", "/machines/rests/start"))
            asked = [pool.submit(_asked, server, *act) for act in acts]
            with pytest.raises(TimeoutError):
                asked[0].result(WAITS)
            assert server.api.get("/machines/runs").json()["status"] in ("running", "stopping")
        assert [one.result() for one in asked] == [(200, ""), (200, "")]
    assert seconds >= 5, "it was given no time"
    assert _machines(server) == {"runs": "stopped", "rests": "running"}
    assert _serves(server, "rests")
    server.start_machine("runs")
    assert _asked(server, "POST", "/machines/rests/stop") == (200, "")


def test_while_it_can_not_be_written_to_all_that_is_asked_is_refused(server: Server) -> None:
    """As on a disk that fails, or that its kernel has made read-only."""
    _, hard = resource.prlimit(server.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (0, hard))
    body = {"name": "new", "vcpu_count": 1, "mem_size_mib": 128, "rootfs_path": "x"}
    for method, path, fields in (
        ("POST", "/machines", body),
        ("POST", "/machines/rests/start", {}),
        ("POST", "/machines/runs/stop", {}),
        ("PATCH", "/machines/runs", {"labels": {"a": "b"}}),
        ("DELETE", "/machines/rests", {}),
        ("POST", "/keys", {"name": "ci", "scopes": ["machines:read"]}),
    ):
        assert _asked(server, method, path, **fields) == UNWRITABLE, (method, path)
    _is_as_before(server)
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (hard, hard))
    server.create("new")
    assert _asked(server, "DELETE", "/machines/new") == (204, "")
    _is_as_before(server)


def test_a_file_that_is_of_no_use_is_refused_and_a_backup_brings_all_back(server: Server) -> None:
    server.kill()
    server.run("backup", "kept.db")
    file = _file(server)
    with contextlib.closing(sqlite3.connect(file)) as opened:
        # What is in the journal goes into the file.
        opened.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    _refused_when_read_only(server)
    for harm in (_cut, _overwrite_the_rows):
        harm(file)
        assert "bring a backup back with `hyperfleet restore FILE`" in _refused(server)
        # As it says.
        for end in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                Path(f"{file}{end}").rename(f"{file}.aside{end}")
        server.run("restore", "kept.db")
    server.start()
    _is_as_before(server)


def _refused_when_read_only(server: Server) -> None:
    file, command = _file(server), [*hyperfleet(), "serve"]
    if os.geteuid() == 0:
        # To root, a mode forbids nothing.
        script = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'
        command = ["unshare", "--mount", "sh", "-c", script, str(file), *command]
    file.chmod(0o400)
    why = "Read-only file system" if os.geteuid() == 0 else "Permission denied"
    assert why in _refused(server, command)
    file.chmod(0o600)


def _cut(file: Path) -> None:
    with file.open("r+b") as opened:
        opened.truncate(file.stat().st_size // 2)


def _overwrite_the_rows(file: Path) -> None:
    """One page, which nobody needs to open it."""
    with contextlib.closing(sqlite3.connect(file)) as opened:
        [(size,)] = opened.execute("PRAGMA page_size")
        [(page,)] = opened.execute("SELECT rootpage FROM sqlite_master WHERE name = 'machines'")
    with file.open("r+b") as raw:
        raw.seek((page - 1) * size)
        raw.write(b"\xa5" * size)


def _refused(server: Server, command: list[str] | None = None) -> str:
    """The server does not start, and says why in one line."""
    done = subprocess.run(
        command or [*hyperfleet(), "serve"],
        cwd=server.folder,
        env=server.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    [line] = done.stderr.splitlines()
    assert line.startswith(f"hyperfleet: the database {_file(server).name} can't be used: ")
    return line


def _is_as_before(server: Server) -> None:
    assert _machines(server) == BEFORE
    assert _serves(server, "runs")
    assert server.sh("runs", "echo heard") == "heard\n"


@contextlib.contextmanager
def _held(server: Server) -> Iterator[None]:
    """Another program is in the middle of a transaction that writes."""
    with contextlib.closing(sqlite3.connect(_file(server), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def _file(server: Server) -> Path:
    return server.folder / "hyperfleet.db"


def _asked(server: Server, method: str, path: str, **body: Any) -> tuple[int, str]:
    """The answer's status, and its error's code."""
    answer = server.api.request(method, path, json=body or None)
    return answer.status_code, answer.json()["error"]["code"] if answer.is_error else ""


def _serves(server: Server, name: str) -> bool:
    """Whether the guest's own server answers; its disk is empty."""
    return plain.get(f"{server.proxy_url}/proxy/{name}/80/").text == "404\n"


def _machines(server: Server) -> dict[str, str]:
    listed = server.api.get("/machines").json()["machines"]
    return {machine["name"]: machine["status"] for machine in listed}
