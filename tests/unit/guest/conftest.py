"""A session of the agent's client, and a guest that says what a test wants."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from hyperfleet.guest.agent import Agent
from hyperfleet.wire import WireError, slip
from hyperfleet.wire import guest as wire

LIMIT = 10


class Guest:
    """The other end: reads what the client says, says what a test wants."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._frames = slip.Reader()
        self._received: list[wire.ToGuest] = []

    async def receive(self) -> wire.ToGuest:
        while not self._received:
            data = await asyncio.wait_for(self.reader.read(65536), LIMIT)
            assert data
            for payload in self._frames.feed(data):
                assert not isinstance(payload, WireError)
                self._received.append(wire.decode_to_guest(payload))
        return self._received.pop(0)

    def say(self, *messages: wire.FromGuest) -> None:
        for message in messages:
            self.writer.write(slip.frame(wire.encode(message)))

    async def welcome(self) -> None:
        hello = await self.receive()
        assert isinstance(hello, wire.Hello)
        self.say(wire.Welcome(nonce=hello.nonce, protocol=1, agent="test", boot_id="b"))


@pytest.fixture
async def ends() -> AsyncIterator[tuple[Guest, asyncio.StreamReader, asyncio.StreamWriter]]:
    here, there = socket.socketpair()
    guest = Guest(*await asyncio.open_unix_connection(sock=there))
    yield guest, *await asyncio.open_unix_connection(sock=here)
    guest.writer.close()
    await guest.writer.wait_closed()


@pytest.fixture
async def pair(ends) -> AsyncIterator[tuple[Guest, Agent]]:
    guest, reader, writer = ends
    connecting = asyncio.create_task(Agent.connect(reader, writer, timeout=LIMIT))
    await guest.welcome()
    agent = await connecting
    yield guest, agent
    await agent.close()
