"""What of a process's end happens before what, with a stream of the test's own behind the API.

The whole of it, against servers: tests/integration/test_exec_stream.py, test_kept_processes.py.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from hyperfleet.auth.keys import Scope
from hyperfleet.guest.values import Attachment, ProcessEnd

from .conftest import Api, asgi_scope

LIMIT = 10


class Ended:
    """A kept process that has ended, without output. Writes down what is done with it."""

    def __init__(self, done: list[str]) -> None:
        self._done = done

    async def attach(self, _name: str) -> Ended:
        return self

    async def attached(self) -> Attachment:
        return Attachment(offset=0, dropped=0, stdin=False, terminal=False)

    async def read(self) -> None:
        return None

    async def ended(self) -> ProcessEnd:
        return ProcessEnd(exit_code=0, signal=None)

    def end_taken(self) -> None:
        self._done.append("taken")

    async def abandon(self) -> None:
        # As long as it takes to be told.
        for _ in range(100):
            await asyncio.sleep(0)
        self._done.append("agent told")


async def test_a_name_is_free_when_its_connection_is_closed(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    await api.machine()
    done: list[str] = []
    monkeypatch.setattr(api.fleet, "processes", lambda _ref: Ended(done))
    asked: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    asked.put_nowait({"type": "websocket.connect"})
    asked.put_nowait({"type": "websocket.receive", "text": '{"attach": "build"}'})

    async def send(message: Any) -> None:
        if message["type"] == "websocket.close":
            done.append(f"closed {message['code']}")
        elif message["type"] == "websocket.send":
            kind = json.loads(message["text"])["type"]
            done.append(kind)
            if kind == "exited":
                asked.put_nowait({"type": "websocket.receive", "text": '{"type": "end_taken"}'})

    scope = asgi_scope("websocket", "/machines/web/exec", api.keys[Scope.EXEC])
    async with asyncio.timeout(LIMIT):
        await api.app(scope, asked.get, send)
    assert done == ["attached", "exited", "taken", "agent told", "closed 1000"]
