"""Length-prefixed frames for Unix sockets: u32 big-endian length, then the payload."""

from __future__ import annotations

from asyncio import IncompleteReadError, StreamReader

from hyperfleet.wire import WireError

# Bound of one payload, bytes. Larger things (a snapshot of routes) come in parts.
MAX_PAYLOAD = 1 << 20
_PREFIX_BYTES = 4


def frame(payload: bytes) -> bytes:
    """One frame.

    Raises:
        WireError: `payload` is over MAX_PAYLOAD bytes.
    """
    if len(payload) > MAX_PAYLOAD:
        raise WireError(f"frame is larger than {MAX_PAYLOAD} bytes")
    return len(payload).to_bytes(_PREFIX_BYTES, "big") + payload


async def read(reader: StreamReader) -> bytes | None:
    """The next payload, or None at a clean end.

    Raises:
        WireError: the length is over the bound, or the stream ends within a frame.
    """
    try:
        prefix = await reader.readexactly(_PREFIX_BYTES)
    except IncompleteReadError as error:
        if error.partial:
            raise WireError("the connection ended within a frame") from error
        return None
    length = int.from_bytes(prefix, "big")
    if length > MAX_PAYLOAD:
        raise WireError(f"frame is larger than {MAX_PAYLOAD} bytes")
    try:
        return await reader.readexactly(length)
    except IncompleteReadError as error:
        raise WireError("the connection ended within a frame") from error
