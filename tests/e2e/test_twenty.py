"""Twenty machines from one image, a crash of the control plane, and nothing left at the end."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from support import plain
from support.server import Server
from support.zygote import Zygote

pytestmark = pytest.mark.vm

MACHINES = [f"m{number:02d}" for number in range(20)]


@pytest.fixture
def server(images: Path, templates: Path, zygote: Zygote) -> Iterator[Server]:
    with Server(
        zygote=zygote, images=images, templates=templates, HYPERFLEET_BOOTS_AT_ONCE="4"
    ) as running:
        yield running


def _bring_up(server: Server, name: str) -> None:
    server.create(name, mem_size_mib=112, exposed_ports=[80])
    server.start_machine(name)
    server.sh(
        name,
        f"mkdir -p /www && echo I am {name} > /www/index.html && httpd -h /www -p 80",
    )


def _pages(server: Server) -> dict[str, str]:
    with httpx.Client(verify=plain.NOBODY, timeout=30) as client:
        return {name: client.get(f"{server.proxy_url}/proxy/{name}/80/").text for name in MACHINES}


def test_twenty_machines_survive_their_control_plane(server: Server) -> None:
    expected = {name: f"I am {name}\n" for name in MACHINES}
    with ThreadPoolExecutor(len(MACHINES)) as pool:
        list(pool.map(lambda name: _bring_up(server, name), MACHINES))
        assert _pages(server) == expected
        pids = {name: server.api.get(f"/machines/{name}").json()["pid"] for name in MACHINES}
        assert len(set(pids.values())) == len(MACHINES)

        server.kill()
        assert _pages(server) == expected, "the data plane serves on without the control plane"
        server.start()
        assert _pages(server) == expected
        for name in MACHINES:
            machine = server.api.get(f"/machines/{name}").json()
            assert (machine["status"], machine["pid"]) == ("running", pids[name])
        answers = pool.map(lambda name: server.sh(name, "cat /www/index.html"), MACHINES)
        assert dict(zip(MACHINES, answers, strict=True)) == expected

        stops = pool.map(lambda name: server.api.post(f"/machines/{name}/stop"), MACHINES)
        assert [stop.json()["status"] for stop in stops] == ["stopped"] * len(MACHINES)

    _nothing_left_but_disks(server)
    for name in MACHINES:
        assert server.api.delete(f"/machines/{name}").status_code == httpx.codes.NO_CONTENT
    assert not list((server.home / "machines").iterdir())
    # No machine runs, so the data plane goes with the control plane.
    assert server.stop() == 0
    assert server.processes() == []


def _nothing_left_but_disks(server: Server) -> None:
    assert server.machine_processes() == []
    # Paths of unix sockets in this network namespace, see proc(5).
    sockets = [
        line.split(maxsplit=7)[-1] for line in Path("/proc/net/unix").read_text().splitlines()
    ]
    left = [path for path in sockets if path.startswith(str(server.home / "machines"))]
    assert all("proxy" in path for path in left), left
    kept = {"disk.qcow2", "console.log"}
    for directory in (server.home / "machines").iterdir():
        files = {path.name for path in directory.iterdir()}
        assert "disk.qcow2" in files
        assert not {name for name in files - kept if name.endswith((".sock", ".pid"))}, files
