"""Real clients through the proxy to a real machine: WebSockets, events, large bodies, errors."""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import json
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import websockets

from support import plain
from support.server import Server

pytestmark = pytest.mark.vm

HUNDRED_MB = 100 * 1024 * 1024
PIECE = bytes(i * 31 % 251 for i in range(64 * 1024))  # what the test server's /bytes repeats


@pytest.fixture(scope="module")
def machine(server: Server, install_test_server: Callable[[str], None]) -> dict[str, Any]:
    """A running machine: the test server on 8080 (all addresses), 8081 (127.0.0.1), 8082 (::1)."""
    made = server.create("traffic", exposed_ports=[8080, 8081, 8082, 8083, 9999])
    server.start_machine(made["id"])
    install_test_server(made["id"])
    server.sh(
        made["id"],
        "test-server [::]:8080 127.0.0.1:8081 [::1]:8082 only6=[::]:8083"
        " > /tmp/test-server.log 2>&1 & echo started",
    )
    path = f"{server.proxy_url}/proxy/{made['id']}"
    for port in (8080, 8081, 8082, 8083):
        _until_reached(f"{path}/{port}/seen")
    return made


def _until_reached(url: str) -> None:
    deadline = time.monotonic() + 20
    while (answer := plain.get(url)).status_code == httpx.codes.BAD_GATEWAY:
        assert time.monotonic() < deadline, answer.text
    assert answer.status_code == httpx.codes.OK, answer.text


@pytest.fixture
def base(server: Server, machine: dict[str, Any]) -> str:
    return f"{server.proxy_url}/proxy/{machine['id']}/8080"


@pytest.mark.parametrize("port", [8080, 8081, 8082, 8083])
def test_a_server_is_reached_whatever_it_binds(
    server: Server, machine: dict[str, Any], port: int
) -> None:
    answer = plain.get(f"{server.proxy_url}/proxy/{machine['id']}/{port}/a//b%2Fc?d=%20")
    seen = answer.json()
    assert seen["target"] == "/a//b%2Fc?d=%20"
    headers = dict(seen["headers"])
    assert headers["x-forwarded-for"] == "127.0.0.1"
    assert headers["x-forwarded-host"] == f"127.0.0.1:{server.proxy_port}"
    assert headers["x-forwarded-proto"] == "http"
    assert headers["x-machine-id"] == machine["id"]
    assert headers["x-forwarded-prefix"] == f"/proxy/{machine['id']}/{port}"


def test_a_machine_is_reached_by_name_and_by_host(server: Server, machine: dict[str, Any]) -> None:
    for ref in (machine["id"], machine["name"]):
        assert plain.get(f"{server.proxy_url}/proxy/{ref}/8080/x").json()["target"] == "/x"
        answer = plain.get(f"{server.proxy_url}/y", headers={"Host": f"{ref}-8080.local.dev:4000"})
        assert answer.json()["target"] == "/y"
        assert dict(answer.json()["headers"])["host"] == f"{ref}-8080.local.dev:4000"


def test_a_server_gets_the_host_and_the_path_that_its_port_is_told(
    server: Server, machine: dict[str, Any]
) -> None:
    path = f"/proxy/{machine['id']}/8081/a"

    def told(**options: Any) -> tuple[str, str, str, str | None]:
        body = {"port_options": {"8081": options}}
        assert server.api.patch(f"/machines/{machine['id']}", json=body).status_code == 200
        seen = plain.get(f"{server.proxy_url}{path}").json()
        headers = dict(seen["headers"])
        forwarded = headers["x-forwarded-host"]
        return seen["target"], headers["host"], forwarded, headers.get("x-forwarded-prefix")

    site = f"127.0.0.1:{server.proxy_port}"
    prefix = path.removesuffix("/a")
    assert told(host="localhost:8081") == ("/a", "localhost:8081", site, prefix)
    assert told(strip_prefix=False) == (path, site, site, None)
    assert told() == ("/a", site, site, prefix)


def test_ports_tell_what_listens_where(server: Server, machine: dict[str, Any]) -> None:
    deadline = time.monotonic() + 20
    while True:
        told = server.api.get(f"/machines/{machine['id']}/ports").json()
        by_port = {port["port"]: port for port in told["ports"]}
        if all(by_port[port]["listening"] for port in (8080, 8081, 8082, 8083)):
            break
        assert time.monotonic() < deadline, told
    assert {port: by_port[port]["address"] for port in (8080, 8081, 8082, 8083)} == {
        8080: "::",
        8081: "127.0.0.1",
        8082: "::1",
        8083: "::",
    }
    assert by_port[9999]["listening"] is False
    assert by_port[8080]["urls"]["path"].endswith(f"/proxy/{machine['id']}/8080/")
    assert by_port[8080]["urls"]["host"] == (
        f"http://{machine['id']}-8080.local.dev:{server.proxy_port}/"
    )


@pytest.mark.parametrize("by_host", [False, True])
async def test_a_websocket_echoes_text_binary_and_1_mib(
    server: Server, machine: dict[str, Any], by_host: bool
) -> None:
    if by_host:
        url = f"ws://{machine['id']}-8080.local.dev:{server.proxy_port}/ws"
    else:
        url = f"ws://127.0.0.1:{server.proxy_port}/proxy/{machine['id']}/8080/ws"
    async with websockets.connect(
        url,
        host="127.0.0.1",
        port=server.proxy_port,
        subprotocols=[websockets.Subprotocol("chat")],
        max_size=None,
        proxy=None,
    ) as client:
        assert client.subprotocol == "chat"
        for message in ("text: grüße", b"\x00\xff binary", "x" * 1024 * 1024, os.urandom(1 << 20)):
            await client.send(message)
            assert await asyncio.wait_for(client.recv(), 30) == message
        await (await client.ping())


def test_events_arrive_one_by_one(base: str) -> None:
    with (
        httpx.Client(verify=plain.NOBODY, timeout=30) as client,
        client.stream("GET", f"{base}/events") as stream,
    ):
        lines = stream.iter_lines()
        assert next(lines) == ": here"
        # Each is sent only after the one before has arrived: nothing can have been held back.
        for number in range(5):
            assert next(lines) == ""
            assert client.post(f"{base}/events", content=f"event {number}").text == "1"
            assert next(lines) == f"data: event {number}"


def test_100_mb_down_keep_their_sha256(base: str) -> None:
    expected = hashlib.sha256()
    for _ in range(HUNDRED_MB // len(PIECE)):
        expected.update(PIECE)
    got = hashlib.sha256()
    with httpx.stream("GET", f"{base}/bytes?n={HUNDRED_MB}", timeout=60) as answer:
        assert answer.headers["content-length"] == str(HUNDRED_MB)
        for piece in answer.iter_raw():
            got.update(piece)
    assert got.hexdigest() == expected.hexdigest()


@pytest.mark.parametrize("chunked", [False, True])
def test_100_mb_up_keep_their_sha256(base: str, chunked: bool) -> None:
    piece = os.urandom(1024 * 1024)
    count = HUNDRED_MB // len(piece)
    expected = hashlib.sha256()
    for _ in range(count):
        expected.update(piece)

    def body() -> Iterator[bytes]:
        for _ in range(count):
            yield piece

    headers = {} if chunked else {"Content-Length": str(HUNDRED_MB)}
    answer = httpx.post(f"{base}/digest", content=body(), headers=headers, timeout=120)
    assert answer.json() == {"length": HUNDRED_MB, "sha256": expected.hexdigest()}


def _raw(server: Server, target: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.proxy_port, timeout=10)
    connection.request("GET", target)
    answer = connection.getresponse()
    result = (answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
    connection.close()
    return result


@pytest.mark.parametrize(
    ("target", "status", "code", "body"),
    [
        ("/proxy/nosuchmachin/80/", 404, "machine_not_found", b'{"error":"Machine not found"}'),
        (
            "/proxy/resting/80/",
            503,
            "machine_not_running",
            b'{"error":"Machine is not running"}',
        ),
        (
            "/proxy/traffic/3000/",
            403,
            "port_not_exposed",
            b'{"error":"Port 3000 is not exposed on this machine"}',
        ),
        (
            "/proxy/traffic/9999/",
            502,
            "upstream_connect_failed",
            b'{"error":"Failed to connect to upstream"}',
        ),
    ],
)
def test_the_four_errors_byte_for_byte(
    server: Server, machine: dict[str, Any], target: str, status: int, code: str, body: bytes
) -> None:
    if "resting" in target:
        server.api.delete("/machines/resting")
        server.create("resting", exposed_ports=[80])
    got_status, headers, got_body = _raw(server, target)
    assert (got_status, got_body) == (status, body)
    assert headers["content-type"] == "application/json"
    assert headers["content-length"] == str(len(body))
    assert headers["x-hyperfleet-error"] == code
    assert json.loads(got_body).keys() == {"error"}


def test_a_stop_answers_503_at_once_and_a_delete_404(server: Server) -> None:
    made = server.create("short-lived", exposed_ports=[80])
    server.start_machine(made["id"])
    server.sh(made["id"], "mkdir -p /www && echo here > /www/index.html && httpd -h /www -p 80")
    url = f"{server.proxy_url}/proxy/short-lived/80/"
    _until_reached(url)
    assert plain.get(url).text == "here\n"
    assert server.api.post("/machines/short-lived/stop").json()["status"] == "stopped"
    assert plain.get(url).status_code == httpx.codes.SERVICE_UNAVAILABLE
    # Its disk is its own and stays.
    server.start_machine(made["id"])
    assert server.sh(made["id"], "cat /www/index.html") == "here\n"
    server.sh(made["id"], "httpd -h /www -p 80")
    _until_reached(url)
    assert server.api.delete("/machines/short-lived").status_code == httpx.codes.CONFLICT
    assert server.api.delete("/machines/short-lived?force=true").status_code == 204
    assert plain.get(url).status_code == httpx.codes.NOT_FOUND


def test_a_server_or_port_added_a_moment_ago_is_reached_at_once(server: Server) -> None:
    made = server.create("prompt", exposed_ports=[81])
    server.start_machine(made["id"])
    url = f"{server.proxy_url}/proxy/prompt/81/"
    assert plain.get(url).status_code == httpx.codes.BAD_GATEWAY
    server.sh(made["id"], "mkdir -p /www && echo now > /www/index.html && httpd -h /www -p 81")
    assert plain.get(url).text == "now\n"

    other = f"{server.proxy_url}/proxy/prompt/82/"
    assert plain.get(other).status_code == httpx.codes.FORBIDDEN
    server.sh(made["id"], "httpd -h /www -p 82")
    with httpx.Client(verify=plain.NOBODY) as kept:
        assert kept.get(url).text == "now\n"
        changed = server.api.patch("/machines/prompt", json={"exposed_ports": [82]})
        assert [port["port"] for port in changed.json()["ports"]] == [82]
        assert plain.get(other).text == "now\n"
        assert kept.get(url).status_code == httpx.codes.FORBIDDEN

    before = changed.json()
    after = server.api.post("/machines/prompt/restart").json()
    assert (after["status"], after["exposed_ports"]) == ("running", [82])
    assert after["pid"] != before["pid"]
    assert after["started_at"] > before["started_at"]
    assert plain.get(other).status_code == httpx.codes.BAD_GATEWAY
    # The disk is the machine's and stays.
    server.sh(made["id"], "httpd -h /www -p 82")
    assert plain.get(other).text == "now\n"
    server.api.delete("/machines/prompt?force=true")


async def test_a_tunnel_lives_on_when_its_port_is_withdrawn_and_nothing_else_does(
    server: Server, machine: dict[str, Any]
) -> None:
    path, exposed = f"/machines/{machine['id']}", machine["exposed_ports"]
    url = f"ws://127.0.0.1:{server.proxy_port}/proxy/{machine['id']}/8080/ws"
    async with websockets.connect(url, proxy=None) as client:
        without = [port for port in exposed if port != 8080]
        changed = await asyncio.to_thread(server.api.patch, path, json={"exposed_ports": without})
        assert changed.status_code == httpx.codes.OK
        await client.send("still here")
        assert await asyncio.wait_for(client.recv(), 30) == "still here"
        with pytest.raises(websockets.InvalidStatus) as refused:
            await websockets.connect(url, proxy=None)
        assert refused.value.response.status_code == httpx.codes.FORBIDDEN
    again = await asyncio.to_thread(server.api.patch, path, json={"exposed_ports": exposed})
    # Found with the answer, the other ports never lost: on loopback, on IPv6 only.
    assert [port["listening"] for port in again.json()["ports"]] == [True] * 4 + [False]
    async with websockets.connect(url, proxy=None) as client:
        await client.send("back")
        assert await asyncio.wait_for(client.recv(), 30) == "back"
