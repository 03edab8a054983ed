"""Servers in a real guest: which the agent finds, and how each is reached."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from hyperfleet.guest.values import Listener
from support.bench import Guest, page

pytestmark = [pytest.mark.vm, pytest.mark.asyncio(loop_scope="module")]

BOUND = {
    8001: ("0.0.0.0", True),
    8002: ("10.0.2.15", True),
    8003: ("127.0.0.1", False),
    8004: ("::", True),
    8005: ("::", False),
    8006: ("::1", False),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def servers(minimal: Guest) -> AsyncIterator[Guest]:
    """One on each address; 8004 is dual-stack, 8005 IPv6 alone (RFC 3493, IPV6_V6ONLY)."""
    await minimal.sh("mkdir -p /www; echo 0 > /proc/sys/net/ipv6/bindv6only")
    for port, (address, _) in BOUND.items():
        only = int(port == 8005)
        where = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        await minimal.sh(
            f"echo {only} > /proc/sys/net/ipv6/bindv6only; mkdir /www/{port};"
            f"echo {port} > /www/{port}/index.html; httpd -p {where} -h /www/{port}"
        )
    yield minimal


async def test_each_listener_is_found_with_its_address(servers: Guest) -> None:
    found = {listener.port: listener for listener in await servers.agent.listeners()}
    assert found == {
        port: Listener(port=port, address=address, direct=direct)
        for port, (address, direct) in BOUND.items()
    }


@pytest.mark.parametrize("port", [port for port, (_, direct) in BOUND.items() if direct])
async def test_a_direct_one_is_reached_on_its_own_port(servers: Guest, port: int) -> None:
    assert await page(await servers.process.forward(port)) == f"{port}\n".encode()


@pytest.mark.parametrize("port", [port for port, (_, direct) in BOUND.items() if not direct])
async def test_another_is_reached_through_a_relay(servers: Guest, port: int) -> None:
    relay = await servers.agent.relay(BOUND[port][0], port)
    assert await servers.agent.relay(BOUND[port][0], port) == relay
    way = await servers.process.forward(relay)
    pages = await asyncio.gather(*(page(way) for _ in range(8)))
    assert pages == [f"{port}\n".encode()] * 8
    assert relay not in {listener.port for listener in await servers.agent.listeners()}


async def test_a_server_may_move_to_every_address_while_it_is_relayed(servers: Guest) -> None:
    await servers.sh("httpd -p 127.0.0.1:8010 -h /www/8003")
    way = await servers.process.forward(await servers.agent.relay("127.0.0.1", 8010))
    assert await page(way) == b"8003\n"
    await servers.sh("kill $(ps | awk '/[1]27.0.0.1:8010/ {print $1}')")
    # Retried within the call: the one that was killed lets go of its port a moment later.
    await servers.sh("until httpd -p 0.0.0.0:8010 -h /www/8001; do :; done", timeout=10)
    found = {listener.port: listener for listener in await servers.agent.listeners()}
    assert found[8010] == Listener(port=8010, address="0.0.0.0", direct=True)
    assert await page(await servers.process.forward(8010)) == b"8001\n"
    assert await page(way) == b"8001\n", "the relay leads to whoever has the port"


async def test_a_relay_leads_nowhere_but_into_the_guest(servers: Guest) -> None:
    relay = await servers.agent.relay("127.0.0.1", 8099)
    assert await page(await servers.process.forward(relay)) == b"", "nobody listens there"


async def test_clients_that_come_at_once_need_not_come_again(servers: Guest) -> None:
    # One that is not let in at once tries again after a second (RFC 6298, 2.1).
    way = await servers.process.forward(8001)
    host, port = way.split(":")
    async with asyncio.timeout(30):
        opened = await asyncio.gather(
            *(asyncio.open_connection(host, int(port)) for _ in range(64))
        )
    retried = [_retransmissions(each) for _, each in opened]
    for _, each in opened:
        each.close()
    assert retried == [0] * 64


def _retransmissions(writer: asyncio.StreamWriter) -> int:
    """tcpi_total_retrans of struct tcp_info (linux/tcp.h): the SYN's count."""
    info = writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    return int.from_bytes(info[100:104], sys.byteorder)
