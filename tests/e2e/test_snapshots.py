"""A real machine that is kept as it is, put back, and made anew."""

from __future__ import annotations

import json

import httpx
import pytest

from hyperfleet.client import ProcessStream
from support import plain
from support.counting import COUNTS, counting
from support.server import Server

pytestmark = pytest.mark.vm


@pytest.fixture(scope="module")
def kept(server: Server) -> Server:
    """With a machine that runs on, and a snapshot of it in the middle of things."""
    server.create("web", rootfs_path=".hyperfleet/minimal-rootfs.ext4", exposed_ports=[80])
    server.start_machine("web")
    server.sh("web", counting("before"))
    ProcessStream(server.api_url, server.key, "web", ["cat"], name="talk").close()
    made = server.api.post("/machines/web/snapshots", json={"name": "one"})
    assert made.status_code == 201, made.text
    assert made.json()["memory"] is True
    assert page(server, "web") == "before\n"
    server.sh("web", "echo after > /index.html")
    return server


def page(server: Server, name: str) -> str:
    answer = plain.get(f"{server.proxy_url}/proxy/{name}/80/")
    assert answer.status_code == 200, answer.text
    return answer.text


def test_requests_wait_while_it_is_copied_and_none_is_lost(kept: Server) -> None:
    with httpx.Client(verify=plain.NOBODY) as client:
        url = f"{kept.proxy_url}/proxy/web/80/"
        assert client.get(url).status_code == 200
        pid = kept.api.get("/machines/web").json()["pid"]
        made = kept.api.post("/machines/web/snapshots", json={"name": "two"}).json()
        assert client.get(url).status_code == 200
    assert kept.api.get("/machines/web").json()["pid"] == pid
    assert kept.sh("web", COUNTS) == "kept\n"
    # Pages that the guest never touched take no room.
    assert 10 << 20 < made["size_bytes"] < 256 << 20
    folder = kept.home / "snapshots" / "two"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert kept.api.delete("/snapshots/two").status_code == 204
    assert not folder.exists()


def test_clones_go_on_from_it_beside_it_and_each_other(kept: Server) -> None:
    for name in ("a", "b"):
        made = kept.api.post("/snapshots/one/clone", json={"name": name})
        assert (made.status_code, made.json()["status"]) == (201, "sleeping")
    for name in ("a", "b"):
        started = kept.start_machine(name)
        assert started["last_start"]["how"] == "memory"
        assert page(kept, name) == "before\n"
        assert kept.sh(name, COUNTS) == "kept\n"
        # A program that outlives its connection outlives its machine too.
        with ProcessStream.attach(kept.api_url, kept.key, name, "talk") as talk:
            talk.write(name.encode())
            talk.end_input()
            assert b"".join(piece.data for piece in talk) == name.encode()
        assert kept.sh(name, "hostname; cat /etc/hostname") == f"{name}\n{name}\n"
        kept.sh(name, f"echo {name} > /index.html")
    assert [page(kept, name) for name in ("a", "b", "web")] == ["a\n", "b\n", "after\n"]
    # What the kernel gives from now on is not the same.
    assert kept.sh("a", "cat /proc/sys/kernel/random/uuid") != kept.sh(
        "b", "cat /proc/sys/kernel/random/uuid"
    )
    # A machine like any other: it boots from its own disk.
    kept.api.post("/machines/a/restart")
    assert kept.sh("a", "cat /index.html") == "a\n"
    for name in ("a", "b"):
        gone = kept.api.delete(f"/machines/{name}", params={"force": "true"})
        assert gone.status_code == 204


def test_it_is_put_back_and_goes_on(kept: Server) -> None:
    back = kept.api.post("/machines/web/restore", json={"snapshot": "one"}).json()
    assert (back["status"], back["pid"]) == ("sleeping", None)
    assert kept.machine_processes() == []
    assert kept.start_machine("web")["last_start"]["how"] == "memory"
    assert page(kept, "web") == "before\n"
    assert kept.sh("web", COUNTS) == "kept\n"


def test_a_disk_alone_is_put_back(kept: Server) -> None:
    kept.sh("web", "echo disk > /index.html; sync")
    kept.api.post("/machines/web/stop")
    made = kept.api.post("/machines/web/snapshots", json={"name": "disk"}).json()
    assert made["memory"] is False
    kept.start_machine("web")
    kept.sh("web", "echo other > /index.html")
    back = kept.api.post("/machines/web/restore", json={"snapshot": "disk"}).json()
    assert back["status"] == "stopped"
    kept.start_machine("web")
    assert kept.sh("web", "cat /index.html") == "disk\n"


def test_what_another_qemu_has_saved_is_refused_and_the_machine_runs_on(kept: Server) -> None:
    about = kept.home / "snapshots" / "one" / "memory.json"
    right = about.read_bytes()
    another = json.loads(right)
    another["line"]["key"] = "another"
    another["qemu"] = "1.2.3"
    about.write_bytes(json.dumps(another).encode())
    pid = kept.start_machine("web")["pid"]
    for path, body in (
        ("/machines/web/restore", {"snapshot": "one"}),
        ("/snapshots/one/clone", {"name": "copy"}),
    ):
        refused = kept.api.post(path, json=body)
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "VALIDATION_ERROR")
        assert "QEMU 1.2.3 has saved it" in refused.json()["error"]["message"]
    assert kept.api.get("/machines/web").json()["pid"] == pid
    assert kept.api.get("/machines/copy").status_code == 404
    about.write_bytes(right)
