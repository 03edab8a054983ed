"""Every request's route, status and time, for whoever counts them."""

from __future__ import annotations

import time
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Method, template of the path (None: no route), status, seconds.
Observe = Callable[[str, str | None, int, float], None]


class Measured:
    """The innermost layer: the router tells its route in the scope that it is given."""

    def __init__(self, app: ASGIApp, observe: Observe) -> None:
        self._app = app
        self._observe = observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.monotonic()
        # What falls over without an answer gets this one further out.
        status = 500

        async def send_seen(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_seen)
        finally:
            route = getattr(scope.get("route"), "path", None)
            self._observe(scope["method"], route, status, time.monotonic() - began)
