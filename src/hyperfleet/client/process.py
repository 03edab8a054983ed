"""What is said of a process over its WebSocket, for both clients of it. No I/O.

Its words: docs/reference/exec-stream.md.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import msgspec

from hyperfleet.client.answers import ApiError

# Bytes of input sent and not told as taken, which the server bears; and of one message of ours.
WINDOW = 1024 * 1024
PIECE = 64 * 1024
# Seconds for a connection to be there.
CONNECT_S = 10.0
_STDERR = 2


class Output(msgspec.Struct, frozen=True):
    """Some output, of standard error or of standard output."""

    data: bytes
    is_error: bool


class ProcessExit(msgspec.Struct, frozen=True):
    """How it ended. `exit_code` is 127 for a program that is missing, 128 + n for signal n."""

    exit_code: int
    signal: str | None
    timed_out: bool


class Attachment(msgspec.Struct, frozen=True):
    """How a process that has a name was found by who attaches.

    `offset`: bytes of its output before what comes first; `dropped`: how many of them, the last
    ones, are lost. `stdin`: whether it takes input; `terminal`: whether it is at one.
    """

    offset: int
    dropped: int
    stdin: bool
    terminal: bool


class Taken(msgspec.Struct, frozen=True):
    """So many bytes of input are not under way any more."""

    size: int


def socket_url(url: str, ref: str) -> str:
    """Where the server at `url` carries a process in the machine `ref`."""
    return f"{url.rstrip('/').replace('http', 'ws', 1)}/machines/{quote(ref, safe='')}/exec"


def headers_of(key: str | None) -> dict[str, str]:
    """Of the opening request."""
    return {"Authorization": f"Bearer {key}"} if key else {}


def first_message(
    command: Sequence[str],
    *,
    cwd: str | None,
    env: Mapping[str, str] | None,
    stdin: bool,
    terminal: tuple[int, int] | None,
    timeout: float | None,
    name: str | None,
) -> str:
    """What says which process is to be run."""
    first: dict[str, Any] = {"command": list(command), "env": dict(env or {}), "stdin": stdin}
    if cwd is not None:
        first["cwd"] = cwd
    if timeout is not None:
        first["timeout"] = timeout
    if terminal is not None:
        first["terminal"] = {"rows": terminal[0], "columns": terminal[1]}
    if name is not None:
        first["name"] = name
    return json.dumps(first)


def attaching(name: str) -> str:
    """What says to which process to attach."""
    return json.dumps({"attach": name})


def order(kind: str, **fields: Any) -> str:
    """What a process, its input or its terminal is told."""
    return json.dumps({"type": kind, **fields})


def heard(message: str | bytes) -> Output | Taken | Attachment | ProcessExit:
    """What the server says.

    Raises:
        ApiError: that it could not be run, or went lost; or what no server of ours says.
    """
    if isinstance(message, bytes):
        return Output(message[1:], is_error=message[:1] == bytes([_STDERR]))
    match json.loads(message):
        case {"type": "stdin_taken", "bytes": int(taken)}:
            return Taken(taken)
        case {"type": "attached"} as said:
            return msgspec.convert(said, Attachment)
        case {"type": "exited"} as said:
            return msgspec.convert(said, ProcessExit)
        case {"type": "error", "error": {"code": str(code), "message": str(words)}}:
            raise ApiError(code, words, 0, None)
        case _:
            raise ApiError("INTERNAL_ERROR", "The server said what is not known here", 0, None)
