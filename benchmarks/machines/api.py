"""A client of the API that costs little: HTTP/1.1 on kept connections, every answer checked."""

from __future__ import annotations

import asyncio
import json
import time
from asyncio import StreamReader, StreamWriter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

from benchmarks.figures import quantile

T = TypeVar("T")

# A request whose answer waits for a boot is the longest.
_ANSWER_S = 300.0
_MOST_HEAD = 64 * 1024


class WrongAnswerError(RuntimeError):
    """An answer with another status than was wanted."""


@dataclass(frozen=True)
class Timing:
    """Requests of one kind: how long all took and each of them, in seconds."""

    seconds: float
    each: list[float]

    @property
    def rate(self) -> float:
        """Requests a second."""
        return len(self.each) / self.seconds

    @property
    def p99_ms(self) -> float:
        """Milliseconds that 99 of 100 requests did not exceed."""
        return quantile(self.each, 0.99) * 1000

    def __add__(self, other: Timing) -> Timing:
        """Both, one after the other."""
        return Timing(self.seconds + other.seconds, self.each + other.each)


class Connection:
    """One connection, which asks one thing after another."""

    def __init__(self, reader: StreamReader, writer: StreamWriter, key: str) -> None:
        self._reader = reader
        self._writer = writer
        self._head = f"Host: bench\r\nAuthorization: Bearer {key}\r\n"

    @classmethod
    async def open(cls, url: str, key: str) -> Connection:
        """To the server at `url`."""
        place = urlsplit(url)
        reader, writer = await asyncio.open_connection(place.hostname, place.port, limit=_MOST_HEAD)
        return cls(reader, writer, key)

    async def ask(self, method: str, path: str, body: Any = None, *, wanted: int = 200) -> Any:
        """The answer's JSON; None where it has none.

        Raises:
            WrongAnswerError: the status is not `wanted`.
        """
        data = b"" if body is None else json.dumps(body).encode()
        kind = "" if body is None else "Content-Type: application/json\r\n"
        head = f"{method} {path} HTTP/1.1\r\n{self._head}{kind}Content-Length: {len(data)}\r\n\r\n"
        self._writer.write(head.encode() + data)
        async with asyncio.timeout(_ANSWER_S):
            lines = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
            fields = dict(line.split(": ", 1) for line in lines[1:] if ": " in line)
            content = await self._reader.readexactly(int(fields.get("content-length", 0)))
        status = int(lines[0].split()[1])
        if status != wanted:
            msg = f"{method} {path}: {status} {content[:300]!r}"
            raise WrongAnswerError(msg)
        return json.loads(content) if content and "json" in fields.get("content-type", "") else None

    def close(self) -> None:
        """No more questions."""
        self._writer.close()


Ask = Callable[[Connection, T], Awaitable[object]]


async def time_all(
    connections: list[Connection],
    items: Iterable[T],
    ask: Ask[T],
    told: Callable[[int], None] = lambda _: None,
) -> Timing:
    """Has `ask` done for every item, on as many connections at once as there are.

    `told` hears of each how many are done.
    """
    waiting = iter(items)
    each: list[float] = []

    async def work(connection: Connection) -> None:
        for item in waiting:
            began = time.perf_counter()
            await ask(connection, item)
            each.append(time.perf_counter() - began)
            told(len(each))

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for connection in connections:
            group.create_task(work(connection))
    return Timing(time.perf_counter() - began, each)
