"""uvicorn's HTTP/1.1, with our words for what is no request at all, and with bounds.

uvicorn bounds heads that come in pieces (64 KiB, by h11) and how long a connection may be idle
between requests, not heads that come at once, nor how long a request may take to come, nor how many
connections there are.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import sys
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from hyperfleet.api.errors import error_response
from hyperfleet.api.exec_stream import is_stream
from hyperfleet.api.request_log import HEADER

# A client that takes nothing of its answer for so long is given up by the kernel, in milliseconds
# (tcp(7), TCP_USER_TIMEOUT).
_UNREAD_MS = 60_000
# A request's head: bytes of its target and fields, and how many fields it has.
_HEAD_BYTES = 64 * 1024
_HEAD_FIELDS = 128
_TOO_LARGE = 431


class _Connection(h11.Connection):
    """h11's, which refuses a head that is over our bounds however it has come."""

    def next_event(self) -> Any:
        event = super().next_event()
        if isinstance(event, h11.Request):
            size = len(event.target) + sum(len(name) + len(value) for name, value in event.headers)
            if size > _HEAD_BYTES or len(event.headers) > _HEAD_FIELDS:
                raise h11.RemoteProtocolError("head too large", error_status_hint=_TOO_LARGE)
        return event


class _Http11(H11Protocol):
    """One connection. `arrival_s`: seconds for a request's head; `most`: connections in all."""

    arrival_s: float
    most: int
    _deadline: asyncio.TimerHandle | None = None

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.conn = _Connection(h11.SERVER, _HEAD_BYTES)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        bare = transport.get_extra_info("socket")
        bare.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNREAD_MS)
        if len(self.connections) > self.most:
            self._refuse("CAPACITY", f"The API has its {self.most} connections; try again")
        else:
            self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        # After an upgrade the connection is another protocol's.
        if self.transport.get_protocol() is self:
            self._watch()

    def _should_upgrade_to_ws(self) -> bool:
        # Elsewhere a request is answered as if it had not asked (RFC 9110, 7.8).
        return super()._should_upgrade_to_ws() and is_stream(self.scope["path"])

    def _unsupported_upgrade_warning(self) -> None:
        """What a client asks for in vain is its own matter."""

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        self._disarm()
        super().handle_websocket_upgrade(event)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def send_400_response(self, msg: str) -> None:
        """See `H11Protocol`; `msg` says no more than that the request is invalid."""
        error = sys.exc_info()[1]
        if getattr(error, "error_status_hint", None) == _TOO_LARGE:
            kib, fields = _HEAD_BYTES // 1024, _HEAD_FIELDS
            self._refuse(
                "HEAD_TOO_LARGE", f"The request's head is over {kib} KiB or {fields} fields"
            )
        else:
            self._refuse("VALIDATION_ERROR", msg.removesuffix("."))

    def _watch(self) -> None:
        """A request that is served takes what time it needs; between two, uvicorn's limit counts.

        That one ends with the first byte of a head, or of a body that nobody reads any more.
        """
        served = self.cycle is not None and not self.cycle.response_complete
        if served or self.timeout_keep_alive_task is not None:
            self._disarm()
        else:
            self._arm()

    def _arm(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(self.arrival_s, self._late)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _late(self) -> None:
        if self.conn.our_state is h11.IDLE and self.conn.trailing_data[0]:
            self._refuse(
                "REQUEST_TIMEOUT", f"The request did not arrive within {self.arrival_s:g} s"
            )
        else:
            self.transport.close()

    def _refuse(self, code: str, message: str) -> None:
        """Answers in the shape of every other error, and ends the connection."""
        answer = error_response(code, message)
        headers = [
            *answer.raw_headers,
            (HEADER.lower().encode(), secrets.token_hex(8).encode()),
            (b"connection", b"close"),
        ]
        response = h11.Response(status_code=answer.status_code, headers=headers)
        for event in (response, h11.Data(data=bytes(answer.body)), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


def http11(*, arrival_s: float, most: int) -> type[H11Protocol]:
    """The protocol with these bounds, for `uvicorn.Config(http=…)`."""
    return type("Http11", (_Http11,), {"arrival_s": arrival_s, "most": most})
