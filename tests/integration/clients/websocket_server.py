"""The WebSocket server behind the proxy, on `websockets`; its path says what it does."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from websockets import ConnectionClosed, Subprotocol
from websockets.asyncio.server import Server, ServerConnection, serve


class WebSocketServer:
    """`start` makes it listen on a free port of 127.0.0.1."""

    def __init__(self) -> None:
        # Code and reason of each connection to /echo?told that has ended.
        self._closed: asyncio.Queue[str] = asyncio.Queue()

    async def start(self) -> Server:
        return await serve(
            self._serve,
            "127.0.0.1",
            0,
            max_size=None,
            select_subprotocol=_second,
        )

    async def _serve(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        path = connection.request.path
        try:
            if path == "/fragments":
                lengths = [len(fragment) async for fragment in connection.recv_streaming()]
                # Some end a message with an empty fragment.
                await connection.send(" ".join(str(length) for length in lengths if length))
            async for message in connection:
                await self._answer(path, connection, message)
        except ConnectionClosed:
            # Read by the next connection, as any other end.
            pass
        if path == "/echo?told":
            self._closed.put_nowait(f"{connection.close_code} {connection.close_reason}")

    async def _answer(self, path: str, connection: ServerConnection, message: str | bytes) -> None:
        match path:
            case "/in-fragments":
                assert isinstance(message, str)
                await connection.send(list(message))
            case "/ping":
                await (await connection.ping("from the server"))
                await connection.send("ponged")
            case "/close":
                await connection.close(4001, str(message))
            case "/told":
                await connection.send(await self._closed.get())
            case _:
                await connection.send(message)


def _second(_: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """The last of those that the client offers, so that it can't be taken for a default."""
    return offered[-1] if offered else None
