"""The web server of a fake guest: files over HTTP/1.1, as small as an honest one can be."""

from __future__ import annotations

import posixpath
from asyncio import IncompleteReadError, LimitOverrunError, StreamReader, StreamWriter
from collections.abc import Mapping
from urllib.parse import unquote, urlsplit


async def serve(
    reader: StreamReader, writer: StreamWriter, files: Mapping[str, bytes], folder: str
) -> None:
    """Answers one connection's requests (GET, HEAD) until either side ends it."""
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            method, target, version, fields = _parse(head)
            body = int(fields.get("content-length", "0"))
            while body > 0:
                body -= len(await reader.readexactly(min(body, 65536)))
            keep = version != "HTTP/1.0" and fields.get("connection", "").lower() != "close"
            writer.write(_answer(method, target, files, folder, keep=keep))
            await writer.drain()
            if not keep:
                return
    except (IncompleteReadError, LimitOverrunError, ValueError, OSError):
        return
    finally:
        writer.close()


def _parse(head: bytes) -> tuple[str, str, str, dict[str, str]]:
    first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    method, target, version = first.split(" ")
    pairs = (line.partition(":") for line in lines)
    return method, target, version, {name.lower(): value.strip() for name, _, value in pairs}


def _answer(
    method: str, target: str, files: Mapping[str, bytes], folder: str, *, keep: bool
) -> bytes:
    path = unquote(urlsplit(target).path)
    name = posixpath.normpath(posixpath.join(folder, path.lstrip("/")))
    content = files.get(posixpath.join(name, "index.html") if path.endswith("/") else name)
    status = "200 OK"
    if method not in ("GET", "HEAD"):
        status, content = "501 Not Implemented", b"501\n"
    elif content is None:
        status, content = "404 Not Found", b"404\n"
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: text/html\r\nContent-Length: {len(content)}\r\n"
        f"Connection: {'keep-alive' if keep else 'close'}\r\n\r\n"
    )
    return head.encode("latin-1") + (b"" if method == "HEAD" else content)
