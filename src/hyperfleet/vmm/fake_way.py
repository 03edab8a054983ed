"""The ways in to a fake guest's ports."""

from __future__ import annotations

import asyncio
import socket
from asyncio import StreamReader, StreamWriter

from hyperfleet.vmm.fake_guest import FakeGuest


class Way:
    """A port of the host's loopback that leads to a port of the guest."""

    def __init__(self, guest: FakeGuest, guest_port: int, address: str) -> None:
        """`address`: of the host's loopback, one for each machine.

        On one for all, the kernel would look for a free port the longer, the more there are: among
        ten thousand that is a third of what an adoption takes.
        """
        self._guest = guest
        self._port = guest_port
        self._socket = socket.create_server((address, 0))
        host, port = self._socket.getsockname()
        self._address = f"{host}:{port}"
        self._serving = asyncio.ensure_future(
            asyncio.start_server(self._connected, sock=self._socket)
        )
        self._writers: set[StreamWriter] = set()

    async def open(self) -> str:
        """Its `ADDRESS:PORT`, when connections to it are taken."""
        await asyncio.shield(self._serving)
        return self._address

    def close(self) -> None:
        """Nobody comes in any more; whoever is in is cut off."""
        self._serving.add_done_callback(lambda serving: serving.result().close())
        for writer in self._writers:
            writer.transport.abort()

    async def _connected(self, reader: StreamReader, writer: StreamWriter) -> None:
        self._writers.add(writer)
        try:
            await self._guest.serve(self._port, reader, writer)
        finally:
            self._writers.discard(writer)
