"""Frames and messages of both sockets, as `crates/wire` has them for Rust.

`slip` and `guest` are spoken with a machine's agent over its virtio-serial port, `length` and
`control` with the data plane over a Unix socket. The vectors in `crates/wire/vectors/` hold both
languages to the same bytes.
"""

from __future__ import annotations

import msgspec

from hyperfleet.errors import HyperfleetError

# All that msgspec raises for bytes that are no message: text that is not UTF-8 and nesting without
# end come as Python's own errors.
DECODE_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class WireError(HyperfleetError):
    """The peer sent what this side does not take."""

    code = "GUEST_ERROR"
