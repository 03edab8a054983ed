"""uvicorn's HTTP/1.1, with our words for what is no request at all."""

from __future__ import annotations

import secrets

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from hyperfleet.api.errors import error_response
from hyperfleet.api.request_log import HEADER


class Http11(H11Protocol):
    """Answers what can't be parsed in the shape of every other error, and ends the connection."""

    def send_400_response(self, msg: str) -> None:
        """See `H11Protocol`; `msg` says no more than that the request is invalid."""
        answer = error_response("VALIDATION_ERROR", msg.removesuffix("."))
        headers = [
            *answer.raw_headers,
            (HEADER.lower().encode(), secrets.token_hex(8).encode()),
            (b"connection", b"close"),
        ]
        response = h11.Response(status_code=answer.status_code, headers=headers)
        for event in (response, h11.Data(data=bytes(answer.body)), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
