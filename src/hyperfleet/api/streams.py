"""Answers that go on: what happens to machines, as server-sent events, and consoles.

They end with the client, with the server, or when the key that they were asked for with is not
good any more.
"""

from __future__ import annotations

import asyncio
import codecs
import json
import time
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from hyperfleet.api import queries
from hyperfleet.api.endpoints import ENDPOINTS
from hyperfleet.api.interface import Follower
from hyperfleet.api.parts import Parts, TheParts
from hyperfleet.api.responses import Urls, event_out
from hyperfleet.api.route import GuardedRoute, admit
from hyperfleet.errors import HyperfleetError
from hyperfleet.machine import EventKind

router = APIRouter(route_class=GuardedRoute, tags=["machines"])

# Seconds. A quiet stream says that it is there, so that whoever is between does not end it; and a
# key that was revoked is soon of no use here either.
_HEARTBEAT_S = 15.0
_CHECK_EVERY_S = 30.0
# After which a browser asks again, in milliseconds.
_RETRY_MS = 1000
_EVENT_STREAM = "text/event-stream"
# Of each event of the stream (HTML, 9.2.6): that is how readers of our document take it, for which
# OpenAPI 3.1 has no word of its own.
_EVENT = {
    "type": "object",
    "description": "Each event of the stream.",
    "required": ["event", "data"],
    "properties": {
        "id": {"type": "string", "description": "for `after`, or Last-Event-ID"},
        "event": {"type": "string", "enum": [*EventKind, "missed"]},
        "data": {"type": "string", "contentMediaType": "application/json"},
    },
}


@router.get(
    "/events",
    summary="Follow what happens to machines",
    response_class=StreamingResponse,
    responses={200: {"content": {_EVENT_STREAM: {"schema": _EVENT}}}},
)
async def events(
    request: Request, query: Annotated[queries.FollowEvents, Query()], parts: TheParts
) -> StreamingResponse:
    """Server-sent events: every change of a machine's state and ports, with its cause.

    What is told and how to go on after a break: docs/reference/events.md.
    """
    after = request.headers.get("last-event-id") or query.after
    with ExitStack() as held:
        follower = held.enter_context(parts.machines.follow(query.machine, after))
        told = _told(follower, parts.urls, ends=query.machine is not None)
        return Stream(request, parts, told, media_type=_EVENT_STREAM, held=held.pop_all())


class Stream(StreamingResponse):
    """Pieces of a body as they come."""

    def __init__(
        self,
        request: Request,
        parts: Parts,
        pieces: AsyncIterator[bytes],
        *,
        media_type: str,
        held: AbstractContextManager[Any] | None = None,
    ) -> None:
        """`held` is let go when the answer is over."""
        super().__init__(
            _allowed(request, parts, pieces),
            media_type=media_type,
            # A proxy in front (nginx) would keep pieces back until they fill its buffer.
            headers={
                "Cache-Control": "no-store",
                "X-Accel-Buffering": "no",
                "X-Content-Type-Options": "nosniff",
            },
        )
        self._held = held or nullcontext()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See `StreamingResponse`."""
        with self._held:
            await super().__call__(scope, receive, send)


async def text(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Bytes as UTF-8, cut between characters only; what is not UTF-8 becomes U+FFFD."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    async for piece in pieces:
        yield decoder.decode(piece).encode()
    yield decoder.decode(b"", final=True).encode()


async def _allowed(
    request: Request, parts: Parts, pieces: AsyncIterator[bytes]
) -> AsyncIterator[bytes]:
    """The pieces, for as long as they may be given."""
    endpoint = ENDPOINTS[request.scope["route"].name]
    checked = time.monotonic()
    stopping = asyncio.create_task(parts.stopping.wait())
    coming: asyncio.Task[bytes | None] | None = None
    try:
        while True:
            coming = asyncio.create_task(_next(pieces))
            await asyncio.wait((coming, stopping), return_when=asyncio.FIRST_COMPLETED)
            if stopping.done() or (piece := coming.result()) is None:
                return
            if time.monotonic() - checked >= _CHECK_EVERY_S:
                await admit(request, endpoint, request.app.state.guard)
                checked = time.monotonic()
            yield piece
    except HyperfleetError:
        # Not good any more; the answer has begun, so its end is all that there is to say.
        return
    finally:
        for task in (stopping, coming):
            if task is not None:
                task.cancel()
                await asyncio.wait((task,))


async def _next(pieces: AsyncIterator[bytes]) -> bytes | None:
    return await anext(pieces, None)


async def _told(follower: Follower, urls: Urls, *, ends: bool) -> AsyncIterator[bytes]:
    """The text of the events (HTML, 9.2); `ends`: with the deletion of the one machine."""
    yield f"retry: {_RETRY_MS}\nid: {follower.id}\n\n".encode()
    while True:
        batch = await follower.next(_HEARTBEAT_S)
        if batch is None:
            yield f": nothing new\nid: {follower.id}\n\n".encode()
            continue
        lines = []
        if batch.missed:
            lines.append('event: missed\ndata: {"type":"missed"}\n\n')
        for event in batch.events:
            said = event_out(event, urls).model_dump(mode="json")
            data = json.dumps({name: value for name, value in said.items() if value is not None})
            lines.append(f"id: {event.id}\nevent: {event.kind}\ndata: {data}\n\n")
        yield "".join(lines).encode()
        if ends and any(event.kind is EventKind.DELETED for event in batch.events):
            return
