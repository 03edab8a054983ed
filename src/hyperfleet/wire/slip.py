"""Self-delimiting frames for the virtio-serial port: SLIP (RFC 1055) around version, payload, crc.

END (0xC0) stands before and after each frame and nowhere else, so whoever starts in the middle is
in step again at the next END; what was cut fails its checksum and is dropped.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from hyperfleet.wire import WireError

VERSION = 1
# Bound of one payload, bytes, before escaping.
MAX_PAYLOAD = 256 * 1024

_END = b"\xc0"
_ESC = b"\xdb"
_ESCAPED_END = b"\xdb\xdc"
_ESCAPED_ESC = b"\xdb\xdd"
_CRC_BYTES = 4


def frame(payload: bytes, *, version: int = VERSION) -> bytes:
    """One frame, an END before and after it. Only who lies gives a `version`.

    Raises:
        WireError: `payload` is over MAX_PAYLOAD bytes.
    """
    if len(payload) > MAX_PAYLOAD:
        raise WireError(f"frame is larger than {MAX_PAYLOAD} bytes")
    body = bytes((version,)) + payload
    body += zlib.crc32(body).to_bytes(_CRC_BYTES, "big")
    escaped = body.replace(_ESC, _ESCAPED_ESC).replace(_END, _ESCAPED_END)
    return _END + escaped + _END


class Reader:
    """Takes bytes as they come and gives whole payloads; holds at most one bounded frame."""

    def __init__(self) -> None:
        # One run of bytes: a list of what came byte by byte costs many times its bytes.
        self._held = bytearray()
        self._overlong = False

    @property
    def overlong(self) -> bool:
        """Whether the frame that has begun is over the bound already; `feed` tells at its end."""
        return self._overlong

    def feed(self, data: bytes) -> Iterator[bytes | WireError]:
        """Yields each payload, or what was wrong with a frame; goes on at the next END.

        The iterator must be used up before the next call.
        """
        *ended, rest = data.split(_END)
        for piece in ended:
            self._hold(piece)
            frame_bytes, overlong = bytes(self._held), self._overlong
            self._held, self._overlong = bytearray(), False
            if overlong:
                yield WireError(f"frame is larger than {MAX_PAYLOAD} bytes")
            elif frame_bytes:
                try:
                    yield _check(frame_bytes)
                except WireError as error:
                    yield error
        self._hold(rest)

    def _hold(self, piece: bytes) -> None:
        # Escaping can double a frame at most, so twice the bound is the most worth keeping.
        if self._overlong or len(self._held) + len(piece) > 2 * (MAX_PAYLOAD + 1 + _CRC_BYTES):
            self._overlong = True
            self._held = bytearray()
        else:
            self._held += piece


def _check(escaped: bytes) -> bytes:
    if escaped.endswith(_ESC):
        raise WireError("corrupt frame: it ends within an escape")
    body = escaped.replace(_ESCAPED_END, _END).replace(_ESCAPED_ESC, _ESC)
    if len(body) < 1 + _CRC_BYTES:
        raise WireError("corrupt frame: it is too short")
    if len(body) > MAX_PAYLOAD + 1 + _CRC_BYTES:
        raise WireError(f"frame is larger than {MAX_PAYLOAD} bytes")
    body, crc = body[:-_CRC_BYTES], body[-_CRC_BYTES:]
    if zlib.crc32(body) != int.from_bytes(crc, "big"):
        raise WireError("corrupt frame: its checksum does not match")
    if body[0] != VERSION:
        raise WireError(f"framing version {body[0]}, this side speaks {VERSION}")
    return body[1:]
