"""Events from the bytes of server-sent events, across connections that break. No I/O."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import msgspec

from hyperfleet.client.answers import ApiError
from hyperfleet.client.http import CONNECT
from hyperfleet.client.values import Event

# The server says something every 15 s.
_QUIET = 60.0
_PAUSE = 1.0
# Seconds for which no server may answer, once one has: time to start it anew.
_PATIENCE = 60.0


class Missed(msgspec.Struct, frozen=True):
    """Some events before the next one are not known any more: look at the machines themselves."""


class EventReader:
    """What was heard, where to go on, and whether to."""

    pause = _PAUSE

    def __init__(
        self,
        machine: str | None,
        after: str | None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._machine = machine
        self._last_id = after
        self._clock = clock
        self._buffer = b""
        self._heard_at: float | None = None
        self._refused = False
        self.over = False

    def request(self) -> dict[str, Any]:
        """The next connection, as `httpx.Client.stream` takes it."""
        headers = {"Accept": "text/event-stream"}
        if self._last_id is not None:
            headers["Last-Event-ID"] = self._last_id
        return {
            "method": "GET",
            "url": "/events",
            "params": [] if self._machine is None else [("machine", self._machine)],
            "headers": headers,
            "timeout": httpx.Timeout(CONNECT, read=_QUIET),
        }

    def refused(self, error: ApiError) -> None:
        """The server has refused, its answer read; a server that starts is asked again.

        Raises:
            ApiError: as it is, if it stays so.
        """
        if error.code != "CAPACITY" or not self.may_try_again():
            raise error
        self._refused = True

    def feed(self, data: bytes) -> Iterator[Event | Missed]:
        """What the bytes complete. Blocks end with an empty line (HTML, 9.2.6)."""
        if self._refused:
            return
        self._heard_at = self._clock()
        self._buffer += data
        *blocks, self._buffer = self._buffer.split(b"\n\n")
        for block in blocks:
            fields = dict(_field(line) for line in block.decode().split("\n"))
            self._last_id = fields.get("id", self._last_id)
            if "data" not in fields:
                continue
            if fields.get("event") == "missed":
                yield Missed()
                continue
            event = msgspec.convert(json.loads(fields["data"]), Event, strict=False)
            # Of one machine: nothing comes after that.
            self.over = self._machine is not None and event.type == "deleted"
            yield event

    def ended(self) -> None:
        """The connection has; half an event is told again by the next one."""
        self._buffer = b""
        self._refused = False

    def may_try_again(self) -> bool:
        """Whether a server has answered, and not too long ago."""
        return self._heard_at is not None and self._clock() - self._heard_at < _PATIENCE


def _field(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name, value.removeprefix(" ")
