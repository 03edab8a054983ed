"""The data plane's table of requests (crates/proxy/tests/cases, whose README has the format)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

FOLDER = Path(__file__).parents[2] / "crates" / "proxy" / "tests" / "cases"
_ESCAPE = re.compile(r"\\(?:x(..)|\*(\d+)\((.*?)\)|(.))", re.DOTALL)
_CHARACTERS = {"r": "\r", "n": "\n", "t": "\t", "0": "\0", "\\": "\\"}


class Forwarded(msgspec.Struct, frozen=True, kw_only=True):
    """What a server in the machine gets, as it would tell it; bytes of heads are Latin-1.

    `length` and `coding` are Content-Length and Transfer-Encoding, `body` is without its framing.
    """

    line: str
    host: str
    length: str | None = None
    coding: str | None = None
    body: bytes = b""
    trailers: tuple[tuple[str, str], ...] = ()

    @property
    def method(self) -> str:
        return self.line.split(" ")[0]

    @property
    def target(self) -> str:
        return self.line.split(" ")[1]


class Case(msgspec.Struct, kw_only=True):
    """One case: what a client sends, the requests that reach the machine whole."""

    name: str
    sent: bytes
    forwarded: list[Forwarded]


def cases() -> Iterator[Case]:
    """All cases of requests under the usual settings."""
    for name, lines in _blocks("requests"):
        if not any(line.startswith("%") for line in lines):
            yield _case(name, lines)


def inputs(folder: str) -> Iterator[bytes]:
    """What is sent in all cases of `requests` or `responses`, whatever their settings."""
    for _, lines in _blocks(folder):
        yield _sent(lines)


def _blocks(folder: str) -> Iterator[tuple[str, list[str]]]:
    for file in sorted((FOLDER / folder).glob("*.txt")):
        for block in file.read_text().split("\n## ")[1:]:
            name, _, text = block.partition("\n")
            yield f"{file.stem}: {name}", text.splitlines()


def _case(name: str, lines: list[str]) -> Case:
    case = Case(name=name, sent=_sent(lines), forwarded=[])
    message: bytes | None = None
    for line in [*lines, "="]:
        if line.startswith("<") and message is not None:
            message += _bytes(line[1:])
        elif line.startswith("!") and " after the upgrade" not in line:
            message = None
        elif line.startswith("="):
            if message is not None:
                case.forwarded.append(_forwarded(message))
            message = b"" if line == "= forward" else None
    return case


def _sent(lines: list[str]) -> bytes:
    return b"".join(_bytes(line[1:]) for line in lines if line.startswith(">"))


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
    line, *lines = head.decode("latin-1").split("\r\n")
    fields = dict(_field(line) for line in lines)
    trailers: tuple[tuple[str, str], ...] = ()
    if coding := fields.get("transfer-encoding"):
        # The table shows a body as one chunk, however many it came in; then an empty one.
        size, _, rest = body.partition(b"\r\n")
        body, rest = rest[: (length := int(size, 16))], rest[length:]
        if length:
            rest = rest.removeprefix(b"\r\n0\r\n")
        trailers = tuple(map(_field, rest.decode("latin-1").split("\r\n")[:-2]))
    return Forwarded(
        line=line,
        host=fields["host"],
        length=fields.get("content-length"),
        coding=coding,
        body=body,
        trailers=trailers,
    )


def _field(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name.lower(), value.strip(" \t")
