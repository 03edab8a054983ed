"""A real machine that stands still: nobody reaches it, and its clock is right when it goes on."""

from __future__ import annotations

import time

import httpx
import pytest

from support import plain
from support.server import Server

pytestmark = pytest.mark.vm

# Long enough to be told from what setting a clock takes.
PAUSE_S = 2.0


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
    said = server.api.post("/machines/web/exec", json={"cmd": ["date", "+%s"]}).json()["stdout"]
    assert abs(int(said) - time.time()) < PAUSE_S - 0.5
    server.api.post("/machines/web/pause")
    assert server.api.post("/machines/web/stop").json()["status"] == "stopped"
