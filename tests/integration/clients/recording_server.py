"""The HTTP server behind the proxy: h11 on asyncio, so that every byte is at hand.

It runs in a thread of its own, and tells what it was sent (`/seen`) or answers in a peculiar way.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import defaultdict
from collections.abc import Awaitable, Callable

import h11

from integration.clients.scenarios import GZIPPED, content

FILE = b"0123456789"
_Headers = list[tuple[str, str]]


class _Gate:
    """Lets whoever waits pass, one for each time it was opened, and says that somebody waits."""

    def __init__(self) -> None:
        self._waiting = asyncio.Semaphore(0)
        self._opened = asyncio.Semaphore(0)

    async def wait(self) -> None:
        self._waiting.release()
        await self._opened.acquire()

    async def open(self) -> None:
        await self._waiting.acquire()
        self._opened.release()


class RecordingServer:
    """Serves a connection: `serve` is for `asyncio.start_server`."""

    def __init__(self) -> None:
        self._gates: dict[str, _Gate] = defaultdict(_Gate)

    def forget(self) -> None:
        """Lets go of what the client before may have left waiting."""
        self._gates.clear()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        exchange = _Exchange(reader, writer, self._gates)
        try:
            while await exchange.run():
                pass
        except (h11.RemoteProtocolError, ConnectionError):
            # A client that breaks off; what it then shows is what the test looks at.
            pass
        finally:
            writer.close()


class _Exchange:
    """One connection's requests and answers, one after the other."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        gates: dict[str, _Gate],
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._gates = gates
        self._http = h11.Connection(h11.SERVER)
        self._continued = False
        self._trailers: dict[str, str] = {}

    async def run(self) -> bool:
        """Answers the next request; False when there is none any more."""
        request = await self._event()
        if not isinstance(request, h11.Request):
            return False
        self._continued, self._trailers = False, {}
        self.request = request
        self.target = request.target.decode()
        self.fields = {name.decode(): value.decode() for name, value in request.headers}
        name = self.target.split("?")[0].split("/")[1]
        await _ANSWERS.get(name, _Exchange.answer_seen)(self)
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        return True

    async def answer_seen(self) -> None:
        """Tells what came; any path that has no answer of its own."""
        body = await self._body()
        record = {
            "method": self.request.method.decode(),
            "target": self.target,
            "headers": self.fields,
            "length": len(body),
            "sha256": hashlib.sha256(body).hexdigest(),
            "continued": self._continued,
            "trailers": self._trailers,
        }
        await self._answer(200, json.dumps(record).encode(), [("Content-Type", "application/json")])

    async def answer_refuse(self) -> None:
        """A final answer to Expect, with how much of the body is there all the same."""
        assert self._http.they_are_waiting_for_100_continue
        sent = len(self._http.trailing_data[0])
        text = f"not a byte of it was wanted: {sent}\n".encode()
        await self._answer(403, text, [("Connection", "close")])

    async def answer_early(self) -> None:
        """Begins its answer after the first bytes of the body, and ends it after the last."""
        length = 0
        while (piece := await self._piece()) is not None:
            if length == 0:
                await self._send(
                    h11.Response(status_code=202, headers=[]), h11.Data(data=b"early\n")
                )
            length += len(piece)
        await self._send(h11.Data(data=f"{length}\n".encode()), h11.EndOfMessage())

    async def answer_hints(self) -> None:
        await self._body()
        link = [("Link", "</style.css>; rel=preload; as=style")]
        await self._send(h11.InformationalResponse(status_code=103, headers=link))
        await self._answer(200, b"hinted")

    async def answer_file(self) -> None:
        await self._body()
        tag = ("ETag", '"tag"')
        if self.request.method == b"DELETE":
            await self._answer(204, None)
        elif self.fields.get("if-none-match") == '"tag"':
            await self._answer(304, None, [tag])
        elif "range" in self.fields:
            first, last = map(int, self.fields["range"].removeprefix("bytes=").split("-"))
            part = ("Content-Range", f"bytes {first}-{last}/{len(FILE)}")
            await self._answer(206, FILE[first : last + 1], [tag, part])
        else:
            await self._answer(200, FILE, [tag])

    async def answer_gzip(self) -> None:
        await self._body()
        assert self.fields["accept-encoding"] == "gzip"
        await self._answer(200, GZIPPED, [("Content-Encoding", "gzip")])

    async def answer_trailers(self) -> None:
        await self._body()
        await self._send(
            h11.Response(status_code=200, headers=[("Trailer", "X-Checksum")]),
            h11.Data(data=b"body"),
            h11.EndOfMessage(headers=[("X-Checksum", "abc")]),
        )

    async def answer_wait(self) -> None:
        await self._body()
        await self._gates["poll"].wait()
        await self._answer(200, b"woken")

    async def answer_wake(self) -> None:
        await self._open("poll")

    async def answer_stream(self) -> None:
        await self._body()
        await self._send(
            h11.Response(status_code=200, headers=[("Content-Type", "text/plain")]),
            h11.Data(data=b"line 0\n"),
        )
        for number in (1, 2):
            await self._gates["stream"].wait()
            await self._send(h11.Data(data=f"line {number}\n".encode()))
        await self._send(h11.EndOfMessage())

    async def answer_next(self) -> None:
        await self._open("stream")

    async def answer_bytes(self) -> None:
        await self._body()
        await self._answer(200, content(int(self.target.rpartition("/")[2])))

    async def answer_moved(self) -> None:
        await self._body()
        where = self.fields["x-forwarded-prefix"] + "/seen?moved"
        await self._answer(302, b"", [("Location", where)])

    async def answer_until_close(self) -> None:
        await self._raw(b"\r\nall of it")

    async def answer_cut(self) -> None:
        await self._raw(b"Content-Length: 10\r\n\r\nfive.")

    async def answer_cut_chunk(self) -> None:
        await self._raw(b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n8\r\nfive.")

    async def _raw(self, rest: bytes) -> None:
        """The end of a head and what follows, and then the connection's."""
        await self._body()
        self._writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n" + rest)
        await self._writer.drain()

    async def _open(self, gate: str) -> None:
        await self._body()
        await self._gates[gate].open()
        await self._answer(204, None)

    async def _answer(
        self, status: int, body: bytes | None, headers: _Headers | None = None
    ) -> None:
        length = [("Content-Length", str(len(body)))] if body is not None else []
        head = h11.Response(status_code=status, headers=[*length, *(headers or [])])
        if self.request.method == b"HEAD":
            body = None
        await self._send(head, *([h11.Data(data=body)] if body else []), h11.EndOfMessage())

    async def _send(self, *events: h11.Event) -> None:
        self._writer.writelines(self._http.send(event) or b"" for event in events)
        await self._writer.drain()

    async def _body(self) -> bytes:
        pieces = []
        while (piece := await self._piece()) is not None:
            pieces.append(piece)
        return b"".join(pieces)

    async def _piece(self) -> bytes | None:
        """The next of the body; None at its end. Who waits to be asked for it is asked."""
        if self._http.they_are_waiting_for_100_continue:
            self._continued = True
            await self._send(h11.InformationalResponse(status_code=100, headers=[]))
        event = await self._event()
        if isinstance(event, h11.Data):
            return bytes(event.data)
        assert isinstance(event, h11.EndOfMessage)
        self._trailers = {name.decode(): value.decode() for name, value in event.headers}
        return None

    async def _event(self) -> h11.Event | type[h11.NEED_DATA | h11.PAUSED]:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._http.receive_data(await self._reader.read(1 << 16))
        return event


# By the path's first part.
_ANSWERS: dict[str, Callable[[_Exchange], Awaitable[None]]] = {
    name.removeprefix("answer_").replace("_", "-"): answer
    for name, answer in vars(_Exchange).items()
    if name.startswith("answer_")
}
