"""A host of the test's own with a machine by user networking, and an internet behind it."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.need import Need
from support.netns import Far, own_network
from support.reach import (
    ALLOWED,
    ELSEWHERE,
    HOST,
    INTERNET,
    METADATA,
    SERVICE,
    UDP,
    World,
    service,
)
from support.server import Server


@pytest.fixture(scope="package")
def world(images: Path, need: Need) -> Iterator[World]:
    for program in ("qemu-system-x86_64", "passt", "ip", "nsenter", "perl"):
        need(program)
    with contextlib.ExitStack() as stack:
        stack.enter_context(own_network())
        far = Far(f"{INTERNET}/24", f"{ELSEWHERE}/32", f"{METADATA}/32", near=f"{HOST}/24")
        stack.callback(far.close)
        for port in (SERVICE, ALLOWED):
            stack.enter_context(service(port))
        host_udp = stack.enter_context(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
        host_udp.bind(("::", UDP))
        host_udp.setblocking(False)
        server = Server(images=images, HYPERFLEET_NETWORK_HOST_PORTS=str(ALLOWED))
        stack.callback(server.close)
        server.start()
        made = World(server, far, host_udp)
        made.add("one")
        yield made
