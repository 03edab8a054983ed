"""Answers that go on, one ASGI call at a time: when they end, and what they say meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from hyperfleet.api import streams
from hyperfleet.auth.keys import Scope
from hyperfleet.machine import Cause, EventKind

from .conftest import Api, asgi_scope

LIMIT = 10
QUIET = b": nothing new\n"


class Call:
    """A GET that is answered; `piece` waits for the next of its body, None is its end."""

    def __init__(self, api: Api, path: str, key: str) -> None:
        scope = asgi_scope("http", path, key) | {"method": "GET"}
        self.status = 0
        self._pieces: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._gone = asyncio.Event()
        self._asked = False
        self._task = asyncio.create_task(api.app(scope, self._receive, self._send))

    async def piece(self) -> bytes | None:
        async with asyncio.timeout(LIMIT):
            return await self._pieces.get()

    async def leave(self) -> None:
        """The client goes; returns when the server has done with it."""
        self._gone.set()
        async with asyncio.timeout(LIMIT):
            await self._task

    async def _receive(self) -> dict[str, Any]:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            return
        if message["body"]:
            self._pieces.put_nowait(message["body"])
        if not message.get("more_body"):
            self._pieces.put_nowait(None)


@asynccontextmanager
async def following(api: Api, path: str = "/events", key: str = "") -> AsyncIterator[Call]:
    call = Call(api, path, key or api.keys[Scope.READ])
    try:
        assert (await call.piece() or b"").startswith(b"retry: ")
        yield call
    finally:
        await call.leave()


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "_HEARTBEAT_S", 0.02)


async def test_a_quiet_stream_says_that_it_is_there_and_how_far_it_has_come(api: Api) -> None:
    await api.machine()
    machine = api.fleet.get("web")
    async with following(api, "/events?machine=web") as call:
        assert (await call.piece() or b"").startswith(QUIET)
        other = await api.machine(name="other")
        api.fleet.events.add(
            EventKind.CREATED, api.fleet.get(other), Cause.REQUEST, machine.created_at
        )
        passed = b""
        while not passed.endswith(b"-1\n\n"):
            passed = await call.piece() or b""
            assert passed.startswith(QUIET)
        api.fleet.events.add(EventKind.DELETED, machine, Cause.REQUEST, machine.created_at)
        while (piece := await call.piece() or b"").startswith(QUIET):
            pass
        assert b"event: deleted\n" in piece
        assert await call.piece() is None


async def test_a_stream_ends_soon_after_its_key(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "_CHECK_EVERY_S", 0.0)
    made = await api.keyring.create(name="short", scopes=(Scope.READ,), expires_at=None)
    async with following(api, key=made.secret) as call:
        assert await call.piece() is not None
        await api.keyring.revoke(made.key.id)
        while await call.piece() is not None:
            pass


async def test_a_stream_ends_with_the_server(api: Api) -> None:
    async with following(api) as call:
        api.app.state.parts.stopping.set()
        while await call.piece() is not None:
            pass


async def test_no_more_follow_than_may(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hyperfleet.fleet.events._MOST_FOLLOWERS", 1)
    async with following(api):
        refused = await api.client.get("/events")
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "CAPACITY")
    # Whoever goes makes room.
    async with following(api):
        pass
