"""Frames and messages of both sockets, as `crates/wire` has them for Rust.

`slip` and `guest` are spoken with a machine's agent over its virtio-serial port, `length` and
`control` with the data plane over a Unix socket. The vectors in `crates/wire/vectors/` hold both
languages to the same bytes.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from hyperfleet.errors import HyperfleetError

# Rust's numbers. (MessagePack has none over 64 bits, so U64 needs no upper bound.)
U16 = Annotated[int, msgspec.Meta(ge=0, le=2**16 - 1)]
U32 = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
U64 = Annotated[int, msgspec.Meta(ge=0)]
I32 = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]

# All that msgspec raises for bytes that are no message: text that is not UTF-8 and nesting without
# end come as Python's own errors.
DECODE_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class WireError(HyperfleetError):
    """The peer sent what this side does not take."""

    code = "GUEST_ERROR"
