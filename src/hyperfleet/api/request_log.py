"""Every request gets an id, one line in the log, and an answer even when a handler falls over."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hyperfleet.api.errors import error_response, internal_error

HEADER = "X-Request-ID"
# What may go into a log and a header as it is; anything else is replaced, not cleaned.
_SANE = re.compile(r"[A-Za-z0-9._:-]{1,128}\Z")
# Asked every few seconds by whatever watches the server.
_QUIET = frozenset({"/health", "/ready", "/metrics"})

log = structlog.get_logger("hyperfleet.api")


class RequestLog:
    """The outermost layer of ours."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        # As it came, percent-encoded: decoded, it could hold line ends and forge other lines.
        path = scope["raw_path"].decode("latin-1")
        began = time.monotonic()
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[HEADER] = request_id
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, receive, send_with_id)
            except (Exception, asyncio.CancelledError) as error:
                stopping = isinstance(error, asyncio.CancelledError) and _is_cut_off()
                if not stopping:
                    log.exception("request failed", method=scope["method"], path=path)
                if status != 0:
                    # Half an answer is out; breaking the connection is all that is left to say.
                    raise
                answer = (
                    error_response("CAPACITY", "The server is stopping")
                    if stopping
                    else internal_error(request_id)
                )
                await answer(scope, receive, send_with_id)
            log.log(
                _level(path, status),
                "request",
                method=scope["method"],
                path=path,
                status=status,
                ms=round((time.monotonic() - began) * 1000, 1),
            )


def _is_cut_off() -> bool:
    """Whether this request itself was cancelled: the server ends, and has given it its time."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _request_id(scope: Scope) -> str:
    given = Headers(scope=scope).getlist(HEADER)
    if len(given) == 1 and _SANE.match(given[0]):
        return given[0]
    return secrets.token_hex(8)


def _level(path: str, status: int) -> int:
    if path in _QUIET:
        return logging.DEBUG
    return logging.WARNING if status >= 500 else logging.INFO  # noqa: PLR2004
