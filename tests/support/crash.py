"""A server that kills itself at a point, over HTTP; and what must hold when the next one is up."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from hyperfleet.failpoints import VARIABLE, Point
from hyperfleet.network.interface import host_address
from support import plain, sockets
from support.server import Server
from support.soak import checks, reality
from support.soak.checks import Reality

_KILLED = -9
# Seconds are what it takes; this is what a very busy host gets.
_MENDED_S = 60.0


def killed_at(server: Server, point: Point) -> None:
    """Starts the server, lives one machine's life on it, which ends where it reaches `point`."""
    if point is Point.ADOPT_DELETING:
        killed_at(server, Point.DELETE_DECIDED)
    elif point.startswith("adopt"):
        server.start()
        _create(server)
        server.start_machine("web")
        server.kill()
    server.environment[VARIABLE] = point
    if point.startswith("adopt"):
        with pytest.raises(AssertionError, match="did not get ready"):
            server.start()
    else:
        server.start()
        with contextlib.suppress(httpx.TransportError):
            _live(server, restart=point is Point.RESTART_STOPPED)
            pytest.fail(f"{point} was not reached")
    assert server.wait() == _KILLED
    del server.environment[VARIABLE]


def mended(server: Server) -> tuple[str, float]:
    """Starts the next server: database, API and reality agree, and the machine is of use.

    Returns the machine's status as it was found, `none` when there is none; and the seconds from
    the command to when nothing was under way any more and all agreed.
    """
    begun = time.perf_counter()
    server.start()
    machine = _settled(server)
    names = {one["name"] for one in agreed(server).machines}
    seconds = time.perf_counter() - begun
    ways = sockets.shown(host_address(machine["id"])) if machine else None
    assert seconds < _MENDED_S
    found: str = machine["status"] if machine else "none"
    assert names <= {"web", "copy"}
    if machine is not None:
        assert found != "failed" or machine["error_message"]
        _use(server, "web")
    if "copy" in names:
        _use(server, "copy")
    for snapshot in server.api.get("/snapshots").json()["snapshots"]:
        _use_snapshot(server, snapshot["name"])
    left = agreed(server)
    assert (left.machines, left.rows, left.qemus) == ((), {}, {})
    for disk in server.api.get("/disks").json()["disks"]:
        gone = server.api.delete(f"/disks/{disk['name']}")
        assert gone.status_code == httpx.codes.NO_CONTENT
    kinds = ("machines", "snapshots", "data")
    assert [path for kind in kinds for path in (server.home / kind).glob("*")] == []
    gone = plain.get(f"{server.proxy_url}/proxy/web/80/", timeout=30)
    assert (gone.status_code, gone.json()) == (404, {"error": "Machine not found"})
    listening = sockets.listening(Path("/proc/net/tcp"))
    assert [one for one in listening if one.address == ways] == []
    return found, seconds


def agreed(server: Server) -> Reality:
    """What there is, once database, API, processes, folders, sockets and ways in agree of it."""
    deadline = time.monotonic() + _MENDED_S
    while True:
        there = reality.seen(server)
        wrong = checks.leftovers(there) + checks.disagreements(there)
        if not wrong:
            return there
        # A way in that is not needed any more goes with the next look at what listens.
        assert time.monotonic() < deadline, wrong
        time.sleep(0.05)


def _create(server: Server) -> None:
    # The fake's guests would end with the control plane, QEMU's do not.
    survives = "fake.survives=true" if server.environment.get("HYPERFLEET_VMM") == "fake" else None
    server.create("web", mem_size_mib=112, exposed_ports=[80], kernel_args=survives)


def _live(server: Server, *, restart: bool) -> None:
    api = server.api
    api.post("/disks", json={"name": "data", "size_mib": 16})
    _create(server)
    server.start_machine("web")
    server.sh("web", "echo hi > /index.html; httpd -p 127.0.0.1:80 -h /")
    api.get("/machines/web/ports")
    api.patch("/machines/web", json={"exposed_ports": [80, 81]})
    api.patch("/machines/web", json={"exposed_ports": [80]})
    api.post("/machines/web/pause")
    api.post("/machines/web/resume")
    api.post("/machines/web/sleep")
    api.post("/machines/web/start")
    api.post(f"/machines/web/{'restart' if restart else 'stop'}")
    api.post("/machines/web/restart")
    server.sh("web", "httpd -p 127.0.0.1:80 -h /")
    api.post("/machines/web/snapshots", json={"name": "one"})
    api.post("/machines/web/restore", json={"snapshot": "one"})
    api.post("/machines/web/start")
    api.post("/snapshots/one/clone", json={"name": "copy"})
    with contextlib.suppress(AssertionError):
        server.sh("web", "poweroff -f")
    api.get("/machines/web/wait", params={"status": "stopped", "timeout": "30"})
    api.delete("/machines/web")
    api.delete("/machines/copy", params={"force": "true"})


def _settled(server: Server) -> dict[str, Any] | None:
    """The machine once nothing is under way."""
    while True:
        answer = server.api.get("/machines/web")
        if answer.status_code == httpx.codes.NOT_FOUND:
            return None
        machine: dict[str, Any] = answer.json()
        if machine["status"] in ("starting", "stopping"):
            ends = "running" if machine["status"] == "starting" else "stopped"
            query = {"status": ends, "timeout": "30"}
            assert server.api.get("/machines/web/wait", params=query).is_success
            continue
        return machine


def _use(server: Server, name: str) -> None:
    if server.api.get(f"/machines/{name}").json()["status"] == "paused":
        assert server.api.post(f"/machines/{name}/resume").json()["status"] == "running"
    server.start_machine(name)
    server.sh(name, "echo hi > /index.html")
    # In vain where the one from before the crash serves on.
    server.exec(name, "httpd", "-p", "80", "-h", "/")
    page = plain.get(f"{server.proxy_url}/proxy/{name}/80/", timeout=30)
    assert (page.status_code, page.text) == (httpx.codes.OK, "hi\n")
    assert server.api.post(f"/machines/{name}/stop").json()["status"] == "stopped"
    assert server.api.delete(f"/machines/{name}").status_code == httpx.codes.NO_CONTENT


def _use_snapshot(server: Server, name: str) -> None:
    """It is whole: a machine is made of it, and goes on."""
    clone = server.api.post(f"/snapshots/{name}/clone", json={"name": "clone"})
    assert clone.json()["status"] == "sleeping", clone.text
    server.start_machine("clone")
    page = plain.get(f"{server.proxy_url}/proxy/clone/80/", timeout=30)
    assert (page.status_code, page.text) == (httpx.codes.OK, "hi\n")
    gone = server.api.delete("/machines/clone", params={"force": "true"})
    assert gone.status_code == httpx.codes.NO_CONTENT
    assert server.api.delete(f"/snapshots/{name}").status_code == httpx.codes.NO_CONTENT
