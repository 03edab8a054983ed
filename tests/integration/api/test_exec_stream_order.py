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


class Unread:
    """A process that takes no input while somebody is attached. Tells what is done with it."""

    def __init__(self, done: list[object], *, is_kept: bool) -> None:
        self._done = done
        self._is_kept = is_kept
        self._released = asyncio.Event()

    async def attach(self, _name: str) -> Unread:
        self._done.append("attached")
        return self

    async def attached(self) -> None:
        return None

    async def read(self) -> None:
        await asyncio.Event().wait()

    async def write(self, data: bytes, *, eof: bool) -> None:
        await self._released.wait()
        self._done.append((data, eof))

    def release(self) -> bool:
        if self._is_kept:
            self._released.set()
        return self._is_kept

    async def abandon(self) -> None:
        self._done.append("abandoned")


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

    def release(self) -> bool:
        return True

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


async def sends_and_goes(api: Api, *sent: dict[str, Any], made: bool = False) -> None:
    """A client that attaches, says all at once, and is gone. `made`: its machine is there."""
    messages = [
        {"type": "websocket.connect"},
        {"type": "websocket.receive", "text": '{"attach": "build"}'},
        *({"type": "websocket.receive", **message} for message in sent),
        {"type": "websocket.disconnect", "code": 1000},
    ]

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    async def send(_message: Any) -> None:
        pass

    if not made:
        await api.machine()
    scope = asgi_scope("websocket", "/machines/web/exec", api.keys[Scope.EXEC])
    async with asyncio.timeout(LIMIT):
        await api.app(scope, receive, send)


@pytest.mark.parametrize("is_kept", [True, False], ids=["kept", "not kept"])
async def test_what_a_client_sent_before_it_went_is_handed_on_if_the_process_is_kept(
    api: Api, monkeypatch: pytest.MonkeyPatch, *, is_kept: bool
) -> None:
    done: list[object] = []
    monkeypatch.setattr(api.fleet, "processes", lambda _ref: Unread(done, is_kept=is_kept))
    await sends_and_goes(api, {"bytes": b"one"}, {"bytes": b"two"}, {"text": '{"type": "eof"}'})
    handed = [(b"one", False), (b"two", False), (b"", True)] if is_kept else []
    assert done == ["attached", *handed, "abandoned"]


async def test_a_process_that_takes_nothing_is_not_waited_for(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[object] = []
    stuck = Unread(done, is_kept=True)
    monkeypatch.setattr(stuck, "release", lambda: True)
    monkeypatch.setattr("hyperfleet.api.exec_stream._HAND_OVER_S", 0.01)
    monkeypatch.setattr(api.fleet, "processes", lambda _ref: stuck)
    await sends_and_goes(api, {"bytes": b"one"})
    assert done == ["attached", "abandoned"]


async def test_what_one_client_sent_goes_before_another_attaches(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[object] = []
    monkeypatch.setattr(api.fleet, "processes", lambda _ref: Unread(done, is_kept=True))
    await api.machine()
    scope = asgi_scope("websocket", "/machines/web/exec", api.keys[Scope.EXEC])
    heard, goes = asyncio.Event(), asyncio.Event()
    messages: list[dict[str, Any]] = [
        {"type": "websocket.connect"},
        {"type": "websocket.receive", "text": '{"attach": "build"}'},
        {"type": "websocket.receive", "bytes": b"one"},
    ]

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop(0)
        # One whose network has gone without a word.
        heard.set()
        await goes.wait()
        return {"type": "websocket.disconnect", "code": 1006}

    async def send(_message: Any) -> None:
        pass

    first = asyncio.create_task(api.app(scope, receive, send))
    async with asyncio.timeout(LIMIT):
        await heard.wait()
        second = asyncio.create_task(sends_and_goes(api, {"bytes": b"two"}, made=True))
        await second
        goes.set()
        await first
    assert done[:3] == ["attached", (b"one", False), "attached"]
    assert (b"two", False) in done
