"""What the agent's own program says about files: the messages of `crates/wire/src/files.rs`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

from hyperfleet.wire import DECODE_ERRORS, U32, U64, WireError

# What is run, and its first argument.
PROGRAM = "/proc/self/exe"
SUBCOMMAND = "files"

I64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class Kind(StrEnum):
    FILE = "file"
    FOLDER = "folder"
    LINK = "link"
    OTHER = "other"


class Entry(msgspec.Struct, frozen=True, kw_only=True, tag="entry", omit_defaults=True):
    name: str
    kind: Kind
    size: U64 | None
    mode: U32
    uid: U32
    gid: U32
    mtime: I64
    target: str | None = None


class Usage(msgspec.Struct, frozen=True, kw_only=True, tag="usage"):
    size: U64
    used: U64


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag="refused"):
    code: str
    message: str


class Done(msgspec.Struct, frozen=True, kw_only=True, tag="done"):
    truncated: bool


FileMessage = Entry | Usage | Refused | Done

_decoder: msgspec.msgpack.Decoder[FileMessage] = msgspec.msgpack.Decoder(FileMessage)


def decode(payload: bytes) -> FileMessage:
    """What the program said.

    Raises:
        WireError: it is no message of ours, or one of the wrong shape.
    """
    try:
        return _decoder.decode(payload)
    except DECODE_ERRORS as error:
        raise WireError(f"message not understood: {error}") from error
