"""Connections of clients, made up: requests that are nearly right, one after the other."""

from __future__ import annotations

from hypothesis import strategies as st

_METHODS = ("GET", "POST", "PUT", "HEAD", "OPTIONS", "PATCH", "DELETE", "PROPFIND", "X-OWN")
_PATHS = (
    "/proxy/web/80/",
    "/proxy/web/8080/a%2fb/../c?x=y#",
    "/proxy/web/80//double",
    "/proxy/web/80/;p=1/%00",
    '/proxy/web/80/?q=<>"{}|\\^`',
    "http://h/proxy/web/80/absolute",
    "http://web-80.local.dev/by/host",
    "/proxy/my-box/80/",
)
_FRAMINGS = (
    "Content-Length: {length}",
    "content-length:{length}",
    "Content-Length: 0{length}",
    "Content-Length: +{length}",
    "Content-Length: {length}, {length}",
    "Content-Length : {length}",
    "Content-Length: {length}\r\nContent-Length: {length}",
    "Content-Length: 0",
    "Transfer-Encoding: chunked",
    "transfer-encoding:\tChunked ",
    "Transfer-Encoding: chunked\r\nContent-Length: {length}",
    "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding: xchunked",
    "Transfer-Encoding: chunked, identity",
    "Transfer_Encoding: chunked",
    "X: a\nTransfer-Encoding: chunked",
    "X: a\r Transfer-Encoding: chunked",
    "X: a\r\n Transfer-Encoding: chunked",
    "\x0bTransfer-Encoding: chunked",
)
_LINES = (
    "Host: other",
    "Host: web-80.local.dev",
    "Connection: close",
    "Connection: keep-alive, x-own",
    "Connection: content-length",
    "Connection: transfer-encoding",
    "X-Own: caf\xe9 \t",
    "X-Empty:",
    "X-Forwarded-For: 1.2.3.4",
    "Expect: 100-continue",
    "Upgrade: h2c",
    "TE: trailers",
    ": nameless",
    "No colon",
    "X-Nul: \0",
)
_SIZES = ("{:x}", "{:X}", "000{:x}", "0x{:x}", "{:x};a=b", '{:x} ;a="b\\"c"', "{:x};", "+{:x}")
_SMUGGLED = b"GET /proxy/web/80/smuggled HTTP/1.1\r\nHost: h\r\n\r\n"
_CONTENT = st.sampled_from((b"", b"a", b"0\r\n\r\n", b"\r\n\r\n", b"\0\xff", _SMUGGLED))


@st.composite
def connections(draw: st.DrawFn) -> bytes:
    """All bytes of one client's connection: one to three requests, the last maybe cut off."""
    sent: bytes = b"".join(draw(st.lists(_requests(), min_size=1, max_size=3)))
    if draw(st.booleans()) and draw(st.booleans()):
        return sent[: draw(st.integers(1, len(sent)))]
    return sent


@st.composite
def _requests(draw: st.DrawFn) -> bytes:
    method, path = draw(st.sampled_from(_METHODS)), draw(st.sampled_from(_PATHS))
    version = draw(st.sampled_from(("HTTP/1.1",) * 6 + ("HTTP/1.0", "http/1.1")))
    content: bytes = draw(_CONTENT)
    lines = [f"{method} {path} {version}", "Host: h"]
    # Mostly nothing odd at all: else hardly a request would reach a server.
    lines += draw(st.lists(st.sampled_from(_LINES), max_size=1))
    framing = (
        draw(st.sampled_from(_FRAMINGS[:2] + _FRAMINGS[8:10]))
        if draw(st.integers(0, 3))
        else draw(st.sampled_from(_FRAMINGS))
    )
    body: bytes = content
    if "hunked" in framing and draw(st.integers(0, 9)) != 0:
        body = draw(_chunked(content))
    lines.append(framing.format(length=len(body)))
    ending = draw(st.sampled_from(("\r\n",) * 9 + ("\n",)))
    head: bytes = (ending.join(lines) + ending * 2).encode("latin-1")
    return head + body


@st.composite
def _chunked(draw: st.DrawFn, content: bytes) -> bytes:
    cut = draw(st.integers(0, len(content)))
    out: bytes = b""
    for part in filter(None, (content[:cut], content[cut:])):
        size = (
            draw(st.sampled_from(_SIZES[:2]))
            if draw(st.integers(0, 3))
            else draw(st.sampled_from(_SIZES))
        )
        ending = draw(st.sampled_from((b"\r\n",) * 19 + (b"\n",)))
        out += size.format(len(part)).encode() + ending + part + b"\r\n"
    trailers: bytes = draw(
        st.sampled_from((b"",) * 3 + (b"X-Trailer: t\r\n", b"Host: t\r\n", b"bad\r\n"))
    )
    last: bytes = draw(st.sampled_from((b"0", b"0", b"0", b"00;a")))
    return out + last + b"\r\n" + trailers + b"\r\n"
