"""The whole control plane and its data plane; the driver is the fake, all else is real."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyperfleet.failpoints import CONTROL_PLANE, Point
from support import crash, plain, proxy
from support.need import Need
from support.page import Page
from support.server import Server
from support.table import printed
from support.zygote import Zygote

_P = Point
# What is found after a crash there: what was asked for, what was before, or a failure with words.
FOUND = {
    **dict.fromkeys((_P.DISK_WRITTEN, _P.CREATE_BEGUN), "none"),
    **dict.fromkeys((_P.DELETE_DECIDED, _P.DELETE_FORGOTTEN), "none"),
    **dict.fromkeys((_P.CREATE_RECORDED, _P.START_BEGUN), "pending"),
    **dict.fromkeys((_P.START_RECORDED, _P.START_PUBLISHED, _P.SPAWN_READY), "failed"),
    **dict.fromkeys((_P.DEATH_SEEN, _P.DEATH_SWEPT), "failed"),
    **dict.fromkeys((_P.DEATH_RECORDED, _P.DELETE_WITHDRAWN), "stopped"),
    **dict.fromkeys((point for point in _P if point.startswith("stop.")), "stopped"),
    **dict.fromkeys((_P.PAUSE_RECORDED, _P.PAUSE_PUBLISHED, _P.RESUME_DONE), "paused"),
    **dict.fromkeys((_P.SLEEP_SAVED, _P.SLEEP_ENDED, _P.WAKE_LOADED), "sleeping"),
    **dict.fromkeys((_P.RESTORE_DECIDED, _P.RESTORE_CLEARED, _P.RESTORE_PLACED), "sleeping"),
    _P.RESTORE_CUT: "stopped",
    _P.STOP_BEGUN: "running",
    _P.ADOPT_DELETING: "none",
}
# At all others.
_RUNS = "running"


@pytest.fixture
def server(need: Need) -> Iterator[Server]:
    proxy.binary(need)
    made = Server(HYPERFLEET_VMM="fake", PROXY_HOST_SUFFIX=".local.dev")
    yield made
    made.close()


def _page(server: Server, path: str, **headers: str) -> tuple[int, str]:
    answer = plain.get(f"{server.proxy_url}{path}", headers=headers)
    return answer.status_code, answer.text.strip()


def test_a_page_through_the_proxy_and_each_of_its_errors(server: Server) -> None:
    server.start()
    machine = server.create("web", exposed_ports=[80])
    ref = machine["id"]
    path = f"/proxy/{ref}/80/"
    assert _page(server, path) == (503, '{"error":"Machine is not running"}')
    server.start_machine("web")
    assert _page(server, path) == (502, '{"error":"Failed to connect to upstream"}')
    assert _page(server, f"/proxy/{ref}/81/")[0] == 403
    server.sh("web", "echo hello > /www/index.html; httpd -p 80 -h /www")
    assert _page(server, path) == (200, "hello")
    assert _page(server, "/proxy/web/80/") == (200, "hello")
    assert _page(server, "/", Host=f"{ref}-80.local.dev") == (200, "hello")
    [port] = server.api.get("/machines/web/ports").json()["ports"]
    assert port["listening"]
    assert port["urls"] == {
        "path": f"http://localhost:{server.proxy_port}{path}",
        "host": f"http://{ref}-80.local.dev:{server.proxy_port}/",
    }
    assert plain.get(port["urls"]["path"]).text.strip() == "hello"
    assert server.api.post("/machines/web/stop").json()["status"] == "stopped"
    assert _page(server, path) == (503, '{"error":"Machine is not running"}')
    assert server.api.delete("/machines/web").status_code == 204
    assert _page(server, path) == (404, '{"error":"Machine not found"}')


def test_a_port_that_gets_the_prefix_too(server: Server) -> None:
    server.start()
    options = {"80": {"strip_prefix": False}}
    server.create("web", exposed_ports=[80], port_options=options)
    server.start_machine("web")
    server.sh("web", "mkdir -p /www/proxy/web/80; echo whole > /www/proxy/web/80/index.html")
    server.sh("web", "echo cut > /www/index.html; httpd -p 80 -h /www")
    assert _page(server, "/proxy/web/80/") == (200, "whole")
    changed = server.api.patch("/machines/web", json={"port_options": {}})
    assert changed.status_code == 200
    assert _page(server, "/proxy/web/80/") == (200, "cut")


def test_the_data_plane_outlives_the_control_plane(server: Server) -> None:
    server.start()
    server.create("web", exposed_ports=[80])
    server.start_machine("web")
    [before] = server.processes()
    assert server.stop() == 0
    # The fake's guests live in the control plane; that something answers at all is the point.
    assert _page(server, "/proxy/web/80/")[0] == 502
    assert server.processes() == [before]


def test_down_leaves_no_process(server: Server) -> None:
    server.start()
    server.create("web", exposed_ports=[80])
    server.start_machine("web")
    done = server.run("down")
    assert done.stdout == "web is stopped.\nThe server has stopped.\n"
    assert server.processes() == []


def test_the_proxys_port_is_taken(server: Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        server.environment["PROXY_PORT"] = str(holder.getsockname()[1])
        refused = server.run("serve", check=False)
    assert refused.returncode == 2
    [line] = [line for line in refused.stderr.splitlines() if not line.startswith("{")]
    assert line.startswith(f"hyperfleet: PROXY_PORT {server.environment['PROXY_PORT']}")


def test_a_home_whose_path_is_longer_than_a_sockets(server: Server) -> None:
    server.home = server.folder / Path(*["x" * 30] * 5)
    server.environment["HYPERFLEET_HOME"] = os.fspath(server.home)
    server.start()
    assert len(os.fspath(server.home / "proxy.sock")) > 108
    assert _page(server, "/proxy/unknown/80/")[0] == 404


def test_the_sdks_example(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.start()
    example = Page("docs/reference/sdk.md").block_with("create_machine(name", "python")
    exec(example, {"url": server.api_url, "key": server.key})  # noqa: S102 - our own page
    assert capsys.readouterr().out == "hello\n\n"


def test_bounds_of_driver_and_host(server: Server) -> None:
    server.start()
    for field, value in (
        ("vcpu_count", 100_000),
        ("mem_size_mib", 10**9),
        ("mem_size_mib", 10**30),
    ):
        body = {"name": "web", "vcpu_count": 1, "mem_size_mib": 128} | {field: value}
        answer = server.api.post("/machines", json=body)
        assert answer.status_code == 400, answer.text
        assert field in answer.json()["error"]["message"]


@pytest.fixture(scope="module")
def table(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    """A row for each point."""
    with printed(request, "killed by SIGKILL at  found    seconds to mend, Python loaded") as rows:
        yield rows


@pytest.fixture
def forked(need: Need, zygote: Zygote) -> Iterator[Server]:
    proxy.binary(need)
    made = Server(HYPERFLEET_VMM="fake", zygote=zygote)
    yield made
    made.close()


@pytest.mark.parametrize("point", CONTROL_PLANE)
def test_killed_at_a_point(forked: Server, point: Point, table: list[str]) -> None:
    crash.killed_at(forked, point)
    found, seconds = crash.mended(forked)
    table.append(f"{point:18} -> {found:8} {seconds:.1f}")
    assert found == FOUND.get(point, _RUNS)


def test_a_point_that_there_is_not(server: Server) -> None:
    server.environment["HYPERFLEET_TEST_FAILPOINT"] = "nowhere"
    refused = server.run("serve", check=False)
    assert refused.returncode == 2
    assert "HYPERFLEET_TEST_FAILPOINT=nowhere: no such point" in refused.stderr
