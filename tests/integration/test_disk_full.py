"""The host's disk is full: what is asked is refused or done, nothing is lost, and it goes on.

The driver is the fake, all else is real. A guest that fills the disk itself is in
contract/drivers/test_qemu.py.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support import plain, proxy
from support.need import Need, mounts
from support.server import Server
from support.small_disk import fill, grow, small_disk

pytestmark = mounts

# A page, served from the boot on; the guest outlives the control plane.
GUEST = "fake.survives=true fake.listens=80"
REFUSED = (503, "CAPACITY")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "small", 16) as folder:
        yield folder


@pytest.fixture
def server(disk: Path, need: Need) -> Iterator[Server]:
    proxy.binary(need)
    made = Server(within=disk, HYPERFLEET_VMM="fake", HYPERFLEET_DISK_RESERVE_MIB="0")
    yield made
    made.close()


def _asked(server: Server, method: str, path: str, **body: Any) -> tuple[int, str]:
    """The answer's status, and its error's code."""
    answer = server.api.request(method, path, json=body or None)
    error = answer.json()["error"]["code"] if answer.is_error else ""
    return answer.status_code, error


def _serves(server: Server, name: str) -> bool:
    """Whether the guest's own server answers; its disk is empty."""
    answer = plain.get(f"{server.proxy_url}/proxy/{name}/80/")
    return answer.text == "404\n"


def _machines(server: Server) -> dict[str, str]:
    listed = server.api.get("/machines").json()["machines"]
    return {machine["name"]: machine["status"] for machine in listed}


def test_a_full_disk_refuses_and_loses_nothing(server: Server, disk: Path) -> None:
    server.start()
    for name in ("runs", "rests"):
        server.create(name, exposed_ports=[80], kernel_args=GUEST)
    server.start_machine("runs")
    before = {"runs": "running", "rests": "pending"}

    filler = fill(disk)
    body = {"name": "new", "vcpu_count": 1, "mem_size_mib": 128, "rootfs_path": "x"}
    assert _asked(server, "POST", "/machines", **body) == REFUSED
    assert _asked(server, "POST", "/machines/rests/start") == REFUSED
    assert _asked(server, "POST", "/machines/runs/stop") == REFUSED
    assert _asked(server, "DELETE", "/machines/rests") == REFUSED
    assert _asked(server, "POST", "/machines/runs/snapshots", name="one") == REFUSED
    assert _machines(server) == before
    assert _serves(server, "runs")

    # A crash on a full disk.
    server.kill()
    server.start()
    assert _machines(server) == before
    assert _serves(server, "runs")
    assert _asked(server, "POST", "/machines/rests/start") == REFUSED

    filler.unlink()
    assert server.start_machine("rests")["status"] == "running"
    server.create("new")
    for name in ("runs", "rests"):
        assert _asked(server, "POST", f"/machines/{name}/stop") == (200, "")
        assert _asked(server, "DELETE", f"/machines/{name}") == (204, "")
    assert _machines(server) == {"new": "pending"}


def test_some_of_the_disk_stays_free(server: Server, disk: Path) -> None:
    grow(disk, 256)
    server.environment["HYPERFLEET_DISK_RESERVE_MIB"] = "64"
    server.start()
    for name in ("runs", "rests"):
        server.create(name, mem_size_mib=128, kernel_args=GUEST)
    server.start_machine("runs")
    assert _asked(server, "POST", "/machines/runs/snapshots", name="one") == (201, "")

    # 96 MiB are free, 32 of them to be had.
    filler = disk / "filler"
    free = shutil.disk_usage(disk).free
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free - (96 << 20))
    answer = server.api.post("/machines/runs/snapshots", json={"name": "two"})
    assert answer.status_code == 503
    message = answer.json()["error"]["message"]
    # Its memory may be all of what it has.
    assert message.startswith("disk: snapshot 'two' may take 128 MiB, and 96 MiB are free where ")
    assert "64 MiB of it stay so (HYPERFLEET_DISK_RESERVE_MIB)" in message
    assert _asked(server, "POST", "/machines/runs/sleep") == REFUSED
    assert _machines(server) == {"runs": "running", "rests": "pending"}
    # Nothing of it is there, and what takes next to nothing is still had.
    assert [one["name"] for one in server.api.get("/snapshots").json()["snapshots"]] == ["one"]
    assert _asked(server, "POST", "/disks", name="data", size_mib=64) == (201, "")
    assert _asked(server, "POST", "/disks", name="huge", size_mib=4 << 20) == REFUSED
    assert server.start_machine("rests")["status"] == "running"
    assert _asked(server, "POST", "/machines/rests/stop") == (200, "")

    # Of the reserve nothing is had.
    with filler.open("ab") as file:
        os.posix_fallocate(file.fileno(), 0, filler.stat().st_size + (40 << 20))
    assert _asked(server, "POST", "/machines/rests/start") == REFUSED
    assert _asked(server, "POST", "/disks", name="more", size_mib=64) == REFUSED
    # What runs may be restarted, and what is written down is the record's.
    assert _asked(server, "POST", "/machines/runs/restart") == (200, "")
    assert _asked(server, "POST", "/machines/runs/stop") == (200, "")
    server.create("new")

    filler.unlink()
    assert server.start_machine("rests")["status"] == "running"
