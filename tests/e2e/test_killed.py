"""The control plane is killed at points of a real machine's life; the next one finds all in order.

Every point there is, on the fake driver: tests/integration/test_whole.py.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from hyperfleet.failpoints import Point
from support import crash
from support.server import Server
from support.table import printed
from support.zygote import Zygote

pytestmark = pytest.mark.vm

# Where QEMU, its files and its sockets are in question; and what may be found then.
POINTS = {
    Point.SPAWN_READY: "failed",
    Point.SPAWN_DONE: "running",
    Point.LOOK_RELAYED: "running",
    Point.CHANGE_AIMED: "running",
    Point.PAUSE_PUBLISHED: "paused",
    Point.SLEEP_RECORDED: "running",
    Point.SLEEP_SAVED: "sleeping",
    Point.WAKE_LOADED: "sleeping",
    Point.WAKE_FORGOTTEN: "running",
    Point.SNAPSHOT_STILL: "running",
    Point.RESTORE_DECIDED: "sleeping",
    Point.CLONE_RECORDED: "running",
    Point.STOP_PUBLISHED: "stopped",
    Point.DELETE_DECIDED: "none",
    Point.ADOPT_HELD: "running",
}


@pytest.fixture
def server(
    request: pytest.FixtureRequest, images: Path, templates: Path, zygote: Zygote
) -> Iterator[Server]:
    boots = getattr(request, "param", False)
    made = Server(images=images, zygote=zygote, templates=None if boots else templates)
    yield made
    made.close()


@pytest.fixture(scope="module")
def table(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    with printed(
        request, "a real machine, killed at  found  seconds to mend, Python loaded"
    ) as rows:
        yield rows


# Where a process begins it boots; everywhere else it is cloned, which takes a fraction of it.
@pytest.mark.parametrize(
    ("server", "point", "found"),
    [(point.startswith("spawn"), point, found) for point, found in POINTS.items()],
    indirect=["server"],
    ids=POINTS,
)
def test_killed_at(server: Server, point: Point, found: str, table: list[str]) -> None:
    crash.killed_at(server, point)
    seen, seconds = crash.mended(server)
    table.append(f"{point:18} -> {seen:8} {seconds:.1f}")
    assert seen == found
    assert server.stop() == 0
    assert server.processes() == []


def test_a_machine_whose_process_dies_comes_up_again(server: Server) -> None:
    server.start()
    server.create("web", mem_size_mib=112, restart="on-failure")
    first = server.start_machine("web")
    os.kill(first["pid"], signal.SIGKILL)
    query = {"status": "failed", "timeout": "30"}
    failed = server.api.get("/machines/web/wait", params=query).json()
    assert "killed by signal 9" in failed["error_message"]
    assert failed["next_start_at"]
    query["status"] = "running"
    again = server.api.get("/machines/web/wait", params=query)
    assert again.status_code == httpx.codes.OK, again.text
    assert again.json()["restarts"] == 1
    assert again.json()["pid"] != first["pid"]
    assert server.sh("web", "echo up") == "up\n"
