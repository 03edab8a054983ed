"""docs/guides/reverse-proxy.md works as it is written: its commands are taken from it and run.

Only the key and the machine's id are filled in. Where no Alpine disk could be made, the disk's name
and the package manager's line are Debian's. curl is told by its configuration file that localhost's
documented ports are this test's.
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets

from support import plain
from support.nginx import nginx as running_nginx
from support.page import Page, Reader, promised
from support.ports import free_port
from support.server import Server

pytestmark = pytest.mark.vm

PAGE = Page("docs/guides/reverse-proxy.md")
HELLO = "<h1>Hello from Hyperfleet!</h1>\n"


@pytest.fixture(scope="module")
def reader(server: Server, images: Path) -> Reader:
    return Reader(server, alpine=(images / "alpine-rootfs.ext4").exists())


def test_the_example(reader: Reader) -> None:
    (made,) = reader.types(PAGE.block_with('"name": "nginx-server"'))
    machine = json.loads(made)
    assert machine["status"] == "pending"
    reader.machine = machine["id"]

    (started,) = reader.types(PAGE.block_with("abc123/start"))
    assert json.loads(started)["status"] == "running"

    answers = [json.loads(answer) for answer in reader.types(PAGE.block_with("# Install nginx"))]
    assert [answer["exit_code"] for answer in answers] == [0, 0, 0], answers

    (page,) = reader.types(PAGE.block_with("# Output:"))
    assert page == HELLO
    assert page.splitlines() == promised(PAGE.block_with("# Output:"))

    by_host = reader.types(PAGE.block_with("local.dev:4000"))
    assert by_host[-1] == HELLO
    reader.server.api.post(f"/machines/{reader.machine}/stop")


def test_exposing_and_routing(reader: Reader, install_test_server: Callable[[str], None]) -> None:
    (made,) = reader.types(PAGE.block_with('"name": "web-server"'))
    machine = json.loads(made)
    assert (machine["vcpu_count"], machine["mem_size_mib"]) == (2, 512)
    assert machine["exposed_ports"] == [80, 8080]
    reader.machine = machine["id"]
    reader.server.start_machine(machine["id"])
    install_test_server(machine["id"])
    reader.server.sh(
        machine["id"], "test-server 0.0.0.0:80 [::]:8080 > /tmp/log 2>&1 & echo started"
    )
    _until_reached(f"{reader.server.proxy_url}/proxy/{machine['id']}/8080/")

    port_80, port_8080 = reader.types(PAGE.block_with("8080/api/health"))
    assert json.loads(port_80)["target"] == "/"
    assert json.loads(port_8080)["target"] == "/api/health"
    by_host = json.loads(reader.types(PAGE.block_with("local.dev:4000"))[-1])
    assert dict(by_host["headers"])["host"] == f"{machine['id']}-80.local.dev:4000"
    asyncio.run(_websocket_of_the_page(reader))

    path_3000 = f"{reader.server.proxy_url}/proxy/{machine['id']}/3000/"
    assert plain.get(path_3000).status_code == httpx.codes.FORBIDDEN
    # Until it listens: what is asked here is whether the new port leads there at once.
    reader.server.sh(
        machine["id"],
        "test-server 127.0.0.1:3000 > /tmp/log2 2>&1 &"
        " until grep -q ':0BB8 ' /proc/net/tcp; do sleep 0.05; done",
    )
    (changed,) = reader.types(PAGE.block_with("curl -X PATCH"))
    assert json.loads(changed)["exposed_ports"] == [80, 8080, 3000]
    assert plain.get(path_3000).status_code == httpx.codes.OK
    reader.server.api.post(f"/machines/{reader.machine}/stop")


def test_the_readmes_example(reader: Reader) -> None:
    readme = Page("README.md").block_with("hyperfleet serve")
    _, _, without_the_start = readme.partition("\n")
    *_, page = reader.types(without_the_start)
    assert page == "<h1>Hello</h1>\n"
    assert page.splitlines() == promised(readme)
    reader.server.api.post("/machines/web/stop")


async def _websocket_of_the_page(reader: Reader) -> None:
    address = re.search(r'WebSocket\("(.*?)"\)', PAGE.block_with("WebSocket(", "javascript"))
    assert address is not None
    url = address[1].replace("abc123", reader.machine)
    async with websockets.connect(
        url, host="127.0.0.1", port=reader.server.proxy_port, proxy=None
    ) as client:
        await client.send("hello")
        assert await client.recv() == "hello"


def _until_reached(url: str) -> None:
    deadline = time.monotonic() + 20
    while plain.get(url).status_code == httpx.codes.BAD_GATEWAY:
        assert time.monotonic() < deadline


@pytest.fixture
def https(server: Server, need: Any, tmp_path: Path) -> Iterator[tuple[int, ssl.SSLContext]]:
    """The page's nginx in front of the proxy: its port, and a context that trusts it."""
    nginx, openssl = need("nginx"), need("openssl")
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            *(openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", "/CN=hyperfleet"),
            *("-addext", "subjectAltName=DNS:*.hyperfleet.example.com"),
            *("-keyout", key, "-out", certificate),
        ],
        check=True,
        capture_output=True,
    )
    port = free_port()
    (block,) = PAGE.blocks("nginx")
    filled = (
        block.replace("listen 443 ssl", f"listen 127.0.0.1:{port} ssl")
        .replace("/path/to/cert.pem", str(certificate))
        .replace("/path/to/key.pem", str(key))
        .replace("http://localhost:4000", f"http://localhost:{server.proxy_port}")
    )
    with running_nginx(nginx, tmp_path, filled, port):
        yield port, ssl.create_default_context(cafile=str(certificate))


def test_https_by_nginx_in_front(
    server: Server,
    install_test_server: Callable[[str], None],
    https: tuple[int, ssl.SSLContext],
) -> None:
    port, context = https
    machine = server.create("behind-nginx", exposed_ports=[8080])
    server.start_machine(machine["id"])
    install_test_server(machine["id"])
    server.sh(machine["id"], "test-server [::]:8080 > /tmp/log 2>&1 & echo started")
    target = f"/proxy/{machine['id']}/8080"
    _until_reached(f"{server.proxy_url}{target}/")

    name = "any.hyperfleet.example.com"
    with httpx.Client(verify=context) as client:
        answer = client.get(
            f"https://127.0.0.1:{port}{target}/a%2Fb",
            headers={"Host": name},
            extensions={"sni_hostname": name},
        )
    seen = answer.json()
    headers = dict(seen["headers"])
    assert seen["target"] == "/a%2Fb"
    assert headers["x-forwarded-proto"] == "https"
    assert headers["x-forwarded-for"] == "127.0.0.1, 127.0.0.1"
    assert headers["x-real-ip"] == "127.0.0.1"
    assert headers["host"] == name
    asyncio.run(_echo(f"wss://{name}:{port}{target}/ws", port, context))
    server.api.post(f"/machines/{machine['id']}/stop")


async def _echo(url: str, port: int, context: ssl.SSLContext) -> None:
    async with websockets.connect(
        url, host="127.0.0.1", port=port, ssl=context, max_size=None, proxy=None
    ) as client:
        for message in ("hello", b"\x00\x01", "x" * (1 << 20)):
            await client.send(message)
            assert await client.recv() == message
