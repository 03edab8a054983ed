"""A data plane before the two servers, which run in a thread."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from websockets.asyncio.server import Server as WebSockets

from integration.clients.recording_server import RecordingServer
from integration.clients.websocket_server import WebSocketServer
from support.need import Need
from support.proxy import Proxy, machine

# Seconds, as a guard.
PATIENCE = 30.0


class Plane(NamedTuple):
    """`origin`: `http://127.0.0.1:PORT`. `forget`: what a client before has left waiting."""

    origin: str
    forget: Callable[[], object]


@contextlib.contextmanager
def opened(need: Need, folder: Path) -> Iterator[Plane]:
    """The machines that the scenarios name; `folder` takes the data plane's files."""
    server = RecordingServer()
    with _loop() as loop, socket.socket() as nobody:

        def done(act: Coroutine[Any, Any, Any]) -> Any:
            return asyncio.run_coroutine_threadsafe(act, loop).result(PATIENCE)

        recording = done(asyncio.start_server(server.serve, "127.0.0.1", 0))
        websocket = done(WebSocketServer().start())
        # Bound, so that nobody else is there, and not listening.
        nobody.bind(("127.0.0.1", 0))
        sockets = {80: recording.sockets[0], 81: websocket.sockets[0], 82: nobody}
        ports = {port: one.getsockname()[1] for port, one in sockets.items()}
        machines = [machine("web", ports), machine("resting", {80: ports[80]}, status="stopped")]
        try:
            with Proxy(need, folder, machines, ".local.dev") as proxy:
                yield Plane(
                    f"http://127.0.0.1:{proxy.port}",
                    lambda: loop.call_soon_threadsafe(server.forget),
                )
        finally:
            done(_end(recording, websocket))


async def _end(recording: asyncio.Server, websocket: WebSockets) -> None:
    """Ends the servers, and what still serves a connection."""
    recording.close()
    websocket.close()
    await websocket.wait_closed()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


@contextlib.contextmanager
def _loop() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop that runs in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(PATIENCE)
        loop.close()
