"""A real machine that sleeps: it has no process, and goes on where it was."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from support import plain
from support.counting import COUNTS, counting
from support.server import Server

pytestmark = pytest.mark.vm


@pytest.fixture(scope="module")
def asleep(server: Server) -> Server:
    """With a machine that has fallen asleep in the middle of things."""
    server.create("web", rootfs_path=".hyperfleet/minimal-rootfs.ext4", exposed_ports=[80])
    server.start_machine("web")
    server.sh("web", counting("hi"))
    assert plain.get(f"{server.proxy_url}/proxy/web/80/").text == "hi\n"
    assert server.api.post("/machines/web/sleep").json()["status"] == "sleeping"
    return server


def test_it_has_no_process_and_nobody_is_led_to_it(asleep: Server) -> None:
    assert asleep.machine_processes() == []
    assert plain.get(f"{asleep.proxy_url}/proxy/web/80/").status_code == 503
    memory = _memory(asleep)
    # What the guest has never touched takes no room.
    assert 10 << 20 < memory.stat().st_size < 256 << 20
    assert memory.stat().st_mode & 0o777 == 0o600


def test_it_goes_on_where_it_was(asleep: Server) -> None:
    time.sleep(1)
    woken = asleep.api.post("/machines/web/start").json()
    assert (woken["status"], woken["last_start"]["how"]) == ("running", "memory")
    assert plain.get(f"{asleep.proxy_url}/proxy/web/80/").text == "hi\n"
    kept, clock = asleep.sh("web", f"{COUNTS}; date +%s").split()
    assert kept == "kept"
    assert abs(int(clock) - time.time()) < 2
    assert not _memory(asleep).exists()


def test_what_another_qemu_has_saved_is_refused_and_kept(asleep: Server) -> None:
    assert asleep.api.post("/machines/web/sleep").json()["status"] == "sleeping"
    about = _memory(asleep).with_name("memory.json")
    right = about.read_bytes()
    another = json.loads(right)
    another["line"]["key"] = "another"
    about.write_bytes(json.dumps(another).encode())
    refused = asleep.api.post("/machines/web/start")
    assert refused.status_code == 502
    assert "can't be gone on from" in refused.json()["error"]["message"]
    machine = asleep.api.get("/machines/web").json()
    assert machine["status"] == "sleeping"
    assert "QEMU" in machine["error_message"]
    assert asleep.machine_processes() == []
    about.write_bytes(right)
    assert asleep.api.post("/machines/web/start").json()["last_start"]["how"] == "memory"
    # Whoever gives it up has a machine that boots.
    assert asleep.api.post("/machines/web/sleep").json()["status"] == "sleeping"
    assert asleep.api.post("/machines/web/restart").json()["last_start"]["how"] != "memory"
    assert asleep.sh("web", "cat /index.html; ls /dev/shm").split() == ["hi"]


def test_it_falls_asleep_when_nobody_uses_it(asleep: Server) -> None:
    asleep.sh("web", "httpd -p 80 -h /")
    asleep.api.patch("/machines/web", json={"sleep_after_s": 2})
    page = f"{asleep.proxy_url}/proxy/web/80/"
    until = time.monotonic() + 4
    while time.monotonic() < until:
        assert plain.get(page).text == "hi\n"
        time.sleep(0.2)
    waited = asleep.api.get("/machines/web/wait", params={"status": "sleeping", "timeout": "30"})
    assert waited.json()["status"] == "sleeping"
    assert asleep.machine_processes() == []
    assert asleep.api.post("/machines/web/stop").json()["status"] == "stopped"
    assert not _memory(asleep).exists()


def _memory(server: Server) -> Path:
    machine = server.api.get("/machines/web").json()
    return server.home / "machines" / str(machine["id"]) / "memory"
