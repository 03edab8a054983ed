"""What every client does through the proxy, and what it must see: one table, no code."""

from __future__ import annotations

import gzip
import hashlib
from typing import Any, Literal

from msgspec import Struct

# The machine `web` exposes port 80 (the recording server), 81 (WebSockets), 82 (nobody there).
WEB = "/proxy/web/80"
WS = "/proxy/web/81"
MIB = 1024 * 1024

_PIECE = bytes(i * 31 % 251 for i in range(64 * 1024))
TEXT = "what is compressed well " * 100
GZIPPED = gzip.compress(TEXT.encode(), mtime=0)


def content(size: int) -> bytes:
    """The bytes of every body of a size, up and down; each program makes them by itself."""
    return (_PIECE * (size // len(_PIECE) + 1))[:size]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Body(Struct, frozen=True):
    """`content(size)`; `chunked`: sent without saying how long it is."""

    size: int
    chunked: bool = False


class Request(Struct, frozen=True, kw_only=True):
    path: str
    method: str = "GET"
    headers: dict[str, str] = {}
    body: Body | None = None
    trailers: dict[str, str] = {}


class Seen(Struct, frozen=True, kw_only=True):
    """What an answer must be; what is None here is not looked at."""

    status: int = 200
    headers: dict[str, str] = {}
    text: str | None = None
    # Length and SHA-256 of the body as it came, and its text once uncompressed.
    raw: bytes | None = None
    # Parts of the JSON that the recording server's /seen answers with.
    record: dict[str, Any] = {}
    trailers: dict[str, str] | None = None
    interim: list[int] | None = None


# requests    one after the other, each answer read whole
# early       the second half of the body is sent only when the answer's first line was read
# poll        the first request is answered only once the second, sent meanwhile, has come
# stream      each line of the first request's answer is asked for by one of the others
# half-close  the sending side is shut down after the request
How = Literal["requests", "early", "poll", "stream", "half-close"]


class Scenario(Struct, frozen=True, kw_only=True):
    name: str
    how: How = "requests"
    requests: tuple[Request, ...]
    # As many as there are requests. None: the client must tell that the answer is not whole.
    seen: tuple[Seen | None, ...]
    # Connections that may be made for it; None: not looked at.
    most_connects: int | None = None


def _errors(*rows: tuple[str, int, str, str]) -> Scenario:
    """Answers of the proxy's own, on one connection: path, status, code, text."""
    return Scenario(
        name="the proxy's own errors",
        requests=tuple(Request(path=path) for path, *_ in rows),
        seen=tuple(
            Seen(
                status=status,
                text=f'{{"error":"{text}"}}',
                headers={"x-hyperfleet-error": code, "content-type": "application/json"},
            )
            for _, status, code, text in rows
        ),
        most_connects=1,
    )


def _one(name: str, request: Request, seen: Seen | None, how: How = "requests") -> Scenario:
    return Scenario(name=name, how=how, requests=(request,), seen=(seen,))


def _upload(name: str, body: Body, headers: dict[str, str] | None = None) -> Scenario:
    """A POST whose bytes must arrive as they are."""
    request = Request(method="POST", path=f"{WEB}/seen", body=body, headers=headers or {})
    arrived = {"length": body.size, "sha256": sha256(content(body.size))}
    expected = arrived | ({"continued": True} if headers else {})
    return _one(name, request, Seen(record=expected))


SCENARIOS = (
    Scenario(
        name="keep-alive",
        requests=(
            Request(path=f"{WEB}/seen?n=1"),
            Request(path=f"{WEB}/seen?n=2", method="POST", body=Body(10)),
            Request(path=f"{WEB}/bytes/100000"),
            Request(path=f"{WEB}/seen//a%2Fb?c=%20", method="DELETE"),
        ),
        seen=(
            Seen(record={"target": "/seen?n=1", "method": "GET"}),
            Seen(record={"target": "/seen?n=2", "method": "POST", "length": 10}),
            Seen(raw=content(100_000)),
            Seen(record={"target": "/seen//a%2Fb?c=%20", "method": "DELETE"}),
        ),
        most_connects=1,
    ),
    _upload("100-continue, continued", Body(3 * MIB), {"Expect": "100-continue"}),
    _one(
        "100-continue, refused",
        Request(
            method="POST",
            path=f"{WEB}/refuse",
            body=Body(3 * MIB),
            headers={"Expect": "100-continue"},
        ),
        Seen(status=403, text="not a byte of it was wanted: 0\n"),
    ),
    _upload("chunked upload", Body(300_000, chunked=True)),
    _upload("no bytes, chunked", Body(0, chunked=True)),
    _one(
        "answer while uploading",
        Request(method="POST", path=f"{WEB}/early", body=Body(200_000, chunked=True)),
        Seen(status=202, text="early\n200000\n"),
        how="early",
    ),
    _one(
        "103 early hints",
        Request(path=f"{WEB}/hints"),
        Seen(text="hinted", interim=[103]),
    ),
    Scenario(
        name="HEAD",
        requests=(Request(method="HEAD", path=f"{WEB}/file"), Request(path=f"{WEB}/file")),
        seen=(Seen(text="", headers={"content-length": "10"}), Seen(text="0123456789")),
        most_connects=1,
    ),
    Scenario(
        name="204 and 304",
        requests=(
            Request(method="DELETE", path=f"{WEB}/file"),
            Request(path=f"{WEB}/file", headers={"If-None-Match": '"tag"'}),
            Request(path=f"{WEB}/file"),
        ),
        seen=(
            Seen(status=204, text=""),
            Seen(status=304, text="", headers={"etag": '"tag"'}),
            Seen(text="0123456789", headers={"etag": '"tag"'}),
        ),
        most_connects=1,
    ),
    _one(
        "a range",
        Request(path=f"{WEB}/file", headers={"Range": "bytes=2-5"}),
        Seen(status=206, text="2345", headers={"content-range": "bytes 2-5/10"}),
    ),
    _one(
        "gzip untouched",
        Request(path=f"{WEB}/gzip", headers={"Accept-Encoding": "gzip"}),
        Seen(raw=GZIPPED, headers={"content-encoding": "gzip"}),
    ),
    _one(
        "trailers down",
        Request(path=f"{WEB}/trailers"),
        Seen(text="body", trailers={"x-checksum": "abc"}),
    ),
    _one(
        "trailers up",
        Request(
            method="POST",
            path=f"{WEB}/seen",
            body=Body(1000, chunked=True),
            trailers={"X-Checksum": "def"},
        ),
        Seen(record={"length": 1000, "trailers": {"x-checksum": "def"}}),
    ),
    Scenario(
        name="long poll",
        how="poll",
        requests=(Request(path=f"{WEB}/wait"), Request(method="POST", path=f"{WEB}/wake")),
        seen=(Seen(text="woken"), Seen(status=204)),
    ),
    Scenario(
        name="lines as they are sent",
        how="stream",
        requests=(
            Request(path=f"{WEB}/stream"),
            Request(method="POST", path=f"{WEB}/next"),
            Request(method="POST", path=f"{WEB}/next"),
        ),
        seen=(Seen(text="line 0\nline 1\nline 2\n"), Seen(status=204), Seen(status=204)),
    ),
    _one(
        "half-close",
        Request(path=f"{WEB}/seen?half"),
        Seen(record={"target": "/seen?half"}),
        how="half-close",
    ),
    _one(
        "until the server closes",
        Request(path=f"{WEB}/until-close"),
        Seen(text="all of it"),
    ),
    _one("cut short", Request(path=f"{WEB}/cut"), None),
    _one("cut short in a chunk", Request(path=f"{WEB}/cut-chunk"), None),
    _one("large down", Request(path=f"{WEB}/bytes/{16 * MIB}"), Seen(raw=content(16 * MIB))),
    _upload("large up", Body(16 * MIB)),
    _upload("large up, chunked", Body(16 * MIB, chunked=True)),
    _one(
        "redirect to the last slash",
        Request(path=f"{WEB}?a=1"),
        Seen(record={"target": "/?a=1"}),
    ),
    _one(
        "redirect of the application",
        Request(path=f"{WEB}/moved"),
        Seen(record={"target": "/seen?moved"}),
    ),
    _errors(
        ("/proxy/nobody/80/", 404, "machine_not_found", "Machine not found"),
        ("/proxy/resting/80/", 503, "machine_not_running", "Machine is not running"),
        (
            "/proxy/web/3000/",
            403,
            "port_not_exposed",
            "Port 3000 is not exposed on this machine",
        ),
        ("/proxy/web/82/", 502, "upstream_connect_failed", "Failed to connect to upstream"),
        ("/elsewhere", 404, "not_found", "Not found"),
    ),
)
