"""A real machine that stands still: nobody reaches it, and its clock is right when it goes on."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import httpx
import pytest
from qemu.qmp import QMPClient

from hyperfleet import unix_sockets
from hyperfleet.vmm.qemu_spawn import QMP_SOCKET
from support import plain
from support.server import Server

pytestmark = pytest.mark.vm

# Long enough to be told from what setting a clock takes.
PAUSE_S = 2.0


def late(server: Server) -> float:
    """How wrong the machine's clock is, seconds."""
    return abs(int(server.sh("web", "date +%s")) - time.time())


def test_a_machine_is_paused_and_resumed(server: Server) -> None:
    server.create("web", rootfs_path=".hyperfleet/minimal-rootfs.ext4", exposed_ports=[80])
    server.start_machine("web")
    server.sh("web", "echo hi > /index.html; httpd -p 80 -h /")
    page = f"{server.proxy_url}/proxy/web/80/"
    assert plain.get(page).text == "hi\n"
    paused = server.api.post("/machines/web/pause")
    assert paused.json()["status"] == "paused"
    assert plain.get(page).status_code == httpx.codes.SERVICE_UNAVAILABLE
    refused = server.api.post("/machines/web/exec", json={"cmd": ["true"]})
    assert refused.status_code == httpx.codes.CONFLICT
    assert "resume it first" in refused.json()["error"]["message"]
    time.sleep(PAUSE_S)
    assert server.api.post("/machines/web/resume").json()["status"] == "running"
    assert plain.get(page).text == "hi\n"
    assert late(server) < PAUSE_S - 0.5
    server.api.post("/machines/web/pause")
    assert server.api.post("/machines/web/stop").json()["status"] == "stopped"


def test_one_that_stood_still_when_its_control_plane_was_killed_goes_on(server: Server) -> None:
    """As it does in the midst of a snapshot."""
    machine = server.start_machine("web")
    server.kill()
    asyncio.run(stop(server.home / "machines" / machine["id"]))
    time.sleep(PAUSE_S)
    server.start()
    assert server.api.get("/machines/web").json()["pid"] == machine["pid"]
    assert late(server) < PAUSE_S - 0.5
    assert server.api.post("/machines/web/stop").json()["status"] == "stopped"


async def stop(folder: Path) -> None:
    client = QMPClient()
    await client.connect(await unix_sockets.connect(folder / QMP_SOCKET))
    await client.execute("stop")
    await client.disconnect()
