"""A stream within the process: asyncio's reader and writer here, a callback at the other end.

It takes no file descriptor and no task, so that ten thousand fake machines are cheap.
"""

from __future__ import annotations

import asyncio
from asyncio import StreamReader, StreamReaderProtocol, StreamWriter
from collections.abc import Callable
from typing import Any

_READER_LIMIT_BYTES = 256 * 1024


class MemoryStream(asyncio.Transport):
    """The far end's handle: `send` to the near end's reader; `on_data`, `on_close` from it."""

    def __init__(self, on_data: Callable[[bytes], None], on_close: Callable[[], None]) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._on_data = on_data
        self._on_close = on_close
        self._closed = False
        self._paused = False
        self._undelivered = 0
        self._held: list[bytes] = []
        self._reader = StreamReader(limit=_READER_LIMIT_BYTES)
        self._protocol = StreamReaderProtocol(self._reader)
        self._protocol.connection_made(self)
        self.near = (self._reader, StreamWriter(self, self._protocol, self._reader, self._loop))

    def send(self, data: bytes) -> None:
        """Bytes for the near end; kept back while its reader is full."""
        if self._closed:
            return
        if self._paused:
            self._held.append(data)
        else:
            self._protocol.data_received(data)

    @property
    def is_full(self) -> bool:
        """Whether what is sent now is kept back."""
        return self._paused

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        """The near end's bytes; they arrive in a turn of the loop of their own."""
        if not self._closed:
            self._undelivered += len(data)
            self._loop.call_soon(self._deliver, bytes(data))

    def close(self) -> None:
        """Either end closes: the reader sees the end, the far end is told."""
        if not self._closed:
            self._closed = True
            self._loop.call_soon(self._end)

    def abort(self) -> None:
        self.close()

    def is_closing(self) -> bool:
        return self._closed

    def pause_reading(self) -> None:
        self._paused = True

    def resume_reading(self) -> None:
        self._paused = False
        held, self._held = self._held, []
        for data in held:
            self.send(data)

    def get_write_buffer_size(self) -> int:
        return self._undelivered

    def can_write_eof(self) -> bool:
        return False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        del name
        return default

    def _deliver(self, data: bytes) -> None:
        self._undelivered -= len(data)
        if not self._closed:
            self._on_data(data)

    def _end(self) -> None:
        self._protocol.connection_lost(None)
        self._on_close()
