"""The data plane's table of requests (crates/proxy/tests/cases, whose README has the format)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

FOLDER = Path(__file__).parents[2] / "crates" / "proxy" / "tests" / "cases" / "requests"
_ESCAPE = re.compile(r"\\(?:x(..)|\*(\d+)\((.*?)\)|(.))", re.DOTALL)
_CHARACTERS = {"r": "\r", "n": "\n", "t": "\t", "0": "\0", "\\": "\\"}


class Forwarded(msgspec.Struct, frozen=True):
    """What a server in the machine gets: the request line, and the body without its framing."""

    line: str
    body: bytes


class Case(msgspec.Struct, kw_only=True):
    """One case: what a client sends, the requests that reach the machine whole.

    `broken`: one more may begin to reach it, and is broken off.
    """

    name: str
    sent: bytes
    forwarded: list[Forwarded]
    broken: bool


def cases() -> Iterator[Case]:
    """All cases of requests under the usual settings."""
    for file in sorted(FOLDER.glob("*.txt")):
        for block in file.read_text().split("\n## ")[1:]:
            name, _, text = block.partition("\n")
            if "\n%" not in f"\n{text}":
                yield _case(f"{file.stem}: {name}", text.splitlines())


def _case(name: str, lines: list[str]) -> Case:
    sent = b"".join(_bytes(line[1:]) for line in lines if line.startswith(">"))
    case = Case(name=name, sent=sent, forwarded=[], broken=False)
    message: bytes | None = None
    for line in [*lines, "="]:
        if line.startswith("<") and message is not None:
            message += _bytes(line[1:])
        elif line.startswith("!") and " after the upgrade" not in line:
            case.broken, message = True, None
        elif line.startswith("="):
            if message is not None:
                case.forwarded.append(_forwarded(message))
            message = b"" if line == "= forward" else None
    return case


def _bytes(text: str) -> bytes:
    """One line after its mark, which may stand for many."""
    many = re.match(r"\*(\d+) ", text)
    line = text[many.end() :] if many else text.removeprefix(" ")
    whole = not re.search(r"(?<!\\)(?:\\\\)*\\$", line)
    line = _ESCAPE.sub(_unescaped, line if whole else line[:-1]) + ("\r\n" if whole else "")
    return line.encode("latin-1") * (int(many[1]) if many else 1)


def _unescaped(found: re.Match[str]) -> str:
    code, count, repeated, character = found.groups()
    if code is not None:
        return chr(int(code, 16))
    if count is not None:
        return _ESCAPE.sub(_unescaped, repeated) * int(count)
    return _CHARACTERS[character]


def _forwarded(message: bytes) -> Forwarded:
    head, _, body = message.partition(b"\r\n\r\n")
    if b"\r\nTransfer-Encoding: chunked" in head:
        # The table shows a body as one chunk, however many it came in.
        size, _, rest = body.partition(b"\r\n")
        body = rest[: int(size, 16)]
    return Forwarded(line=head.split(b"\r\n")[0].decode("latin-1"), body=body)
