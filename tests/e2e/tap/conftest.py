"""A host of the test's own with two machines on taps, and an internet behind it."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.need import Need
from support.netns import Far, own_network, run
from support.reach import (
    ALLOWED,
    ELSEWHERE,
    HOST,
    INTERNET,
    METADATA,
    SERVICE,
    UDP,
    Matrix,
    World,
    service,
)
from support.server import Server

HOST6 = "2001:db8::1"
SUBNET = "172.30.0.0/16"


@pytest.fixture(scope="package")
def world(images: Path, need: Need) -> Iterator[World]:
    for program in ("qemu-system-x86_64", "nft", "ip", "nsenter", "perl"):
        need(program)
    with contextlib.ExitStack() as stack:
        stack.enter_context(own_network())
        far = Far(f"{INTERNET}/24", f"{ELSEWHERE}/32", f"{METADATA}/32", near=f"{HOST}/24")
        stack.callback(far.close)
        run("ip", "address", "add", f"{HOST6}/64", "dev", "out0", "nodad")
        for port in (SERVICE, ALLOWED):
            stack.enter_context(service(port))
        host_udp = stack.enter_context(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
        host_udp.bind(("::", UDP))
        host_udp.setblocking(False)
        server = Server(
            images=images,
            HOST="0.0.0.0",
            PROXY_BIND="0.0.0.0",
            HYPERFLEET_NETWORK="tap",
            HYPERFLEET_SUBNET=SUBNET,
            HYPERFLEET_NETWORK_HOST_PORTS=str(ALLOWED),
            HYPERFLEET_DNS=INTERNET,
        )
        stack.callback(server.close)
        server.start()
        made = World(server, far, host_udp)
        made.add("one")
        made.add("two")
        yield made


@pytest.fixture(scope="module")
def matrix(request: pytest.FixtureRequest) -> Iterator[Matrix]:
    made = Matrix()
    yield made
    made.show("tap", request)
