"""The agent and its client, over a Unix socket: listening ports, and relays to them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest

from hyperfleet.errors import GuestError
from hyperfleet.guest.values import Listener
from support.need import ipv6


def listen(address: str, *, only_v6: bool = False, port: int = 0) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    server = socket.socket(family)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only_v6)
    server.bind((address, port))
    server.listen()
    server.setblocking(False)
    return server


@contextlib.asynccontextmanager
async def echo(address: str, *, only_v6: bool = False) -> AsyncIterator[int]:
    """A server that answers at the end of its input with all of it; gives its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"echo:" + await reader.read())
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, sock=listen(address, only_v6=only_v6))
    async with server:
        yield server.sockets[0].getsockname()[1]


async def first_byte(port: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        return await reader.readexactly(1)
    finally:
        writer.transport.abort()


@pytest.mark.parametrize(
    ("address", "only_v6", "direct"),
    [
        ("0.0.0.0", False, True),
        ("127.0.0.1", False, False),
        ("127.0.0.2", False, False),
        ("::", False, True),
        ("::", True, False),
        pytest.param("::1", False, False, marks=ipv6),
    ],
)
async def test_a_listener_is_told_with_what_it_is_bound_to(agent, address, only_v6, direct):
    with listen(address, only_v6=only_v6) as server:
        port = server.getsockname()[1]
        found = [one for one in await agent.listeners() if one.port == port]
        assert found == [Listener(port=port, address=address, direct=direct)]
    assert not [one for one in await agent.listeners() if one.port == port]


async def test_a_socket_that_does_not_listen_is_none(agent):
    with listen("127.0.0.1") as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            own = client.getsockname()[1]
            assert own not in [one.port for one in await agent.listeners()]


@pytest.mark.parametrize(
    ("bound", "only_v6"),
    [
        ("127.0.0.1", False),
        ("127.0.0.2", False),
        pytest.param("::1", False, marks=ipv6),
        pytest.param("::", True, marks=ipv6),
    ],
)
async def test_a_relay_carries_both_ways_and_passes_the_half_close(agent, bound, only_v6):
    async with echo(bound, only_v6=only_v6) as port:
        relay = await agent.relay(bound, port)
        assert relay != port
        assert await agent.relay(bound, port) == relay
        data = b"x" * 3_000_000
        reader, writer = await asyncio.open_connection("127.0.0.1", relay)
        writer.write(data)
        writer.write_eof()
        assert await reader.read() == b"echo:" + data
        writer.close()
        await writer.wait_closed()
        assert relay not in [one.port for one in await agent.listeners()]


async def test_a_relay_leaves_the_servers_port_free_on_other_addresses(agent):
    with listen("127.0.0.1") as server:
        port = server.getsockname()[1]
        await agent.relay("127.0.0.1", port)
    with listen("0.0.0.0", port=port):
        assert Listener(port=port, address="0.0.0.0", direct=True) in await agent.listeners()


async def test_a_relay_to_a_server_that_has_gone_resets(agent):
    with listen("127.0.0.1") as server:
        port = server.getsockname()[1]
    relay = await agent.relay("127.0.0.1", port)
    # At the connect or at the read, as it happens; never a clean end, never an answer.
    with pytest.raises(ConnectionResetError):
        await first_byte(relay)


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1", "localhost", "", "224.0.0.1"])
async def test_a_relay_leads_to_this_machine_alone(agent, address):
    with pytest.raises(GuestError, match="address"):
        await agent.relay(address, 80)


async def test_relays_outlive_the_session(agents, agent):
    async with echo("127.0.0.1") as port:
        relay = await agent.relay("127.0.0.1", port)
        await agent.close()
        again = await agents.connect()
        assert await again.relay("127.0.0.1", port) == relay
