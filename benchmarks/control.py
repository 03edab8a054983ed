"""A control plane in the benchmark's hands: the product's own messages over a socket that waits."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.peers import HOST, MACHINE
from hyperfleet.wire import control, length

_LIMIT = 60.0
_PIECE = 8192
# What a machine's port leads to if nobody ever asks for it.
_NOBODY = 40_000


class ControlPlane:
    """A session with a data plane. Use it as a context."""

    def __init__(self, path: Path) -> None:
        """Connects, as soon as somebody listens there; both sides' hellos are said."""
        self._socket = _connected(path)
        self._input = bytearray()
        self.send(frames([control.ControlHello(protocol=control.PROTOCOL)]))
        self._hear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.close()

    def send(self, data: bytes) -> None:
        """Sends what `frames` made."""
        in_pieces(self._socket, data)

    def wait_applied(self, number: int) -> None:
        """Until every worker decides by step `number`.

        Raises:
            RuntimeError: the data plane said something else.
        """
        heard = self._hear()
        if heard != control.Applied(number=number):
            msg = f"the data plane was to apply step {number} and said {heard}"
            raise RuntimeError(msg)

    def _hear(self) -> control.FromProxy:
        prefix = int.from_bytes(self._take(4), "big")
        return control.decode_from_proxy(self._take(prefix))

    def _take(self, count: int) -> bytes:
        while len(self._input) < count:
            got = self._socket.recv(1 << 16)
            if not got:
                msg = "the data plane closed the control socket"
                raise RuntimeError(msg)
            self._input += got
        taken = bytes(self._input[:count])
        del self._input[:count]
        return taken


def _connected(path: Path) -> socket.socket:
    """Its port is open a moment before this socket is."""
    limit = time.monotonic() + _LIMIT
    while True:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(_LIMIT)
        try:
            connection.connect(str(path))
        except OSError:
            connection.close()
            if time.monotonic() > limit:
                raise
            time.sleep(0.01)
        else:
            return connection


def in_pieces(to: socket.socket, data: bytes) -> None:
    """Sends all of it.

    In pieces: a kernel without preemption ends no system call early, and one that copies a whole
    table would hold up the load on the same CPU.
    """
    rest = memoryview(data)
    while rest:
        to.sendall(rest[:_PIECE])
        rest = rest[_PIECE:]


def frames(messages: Iterable[control.ToProxy]) -> bytes:
    """The messages as they go over the socket."""
    return b"".join(length.frame(control.encode(message)) for message in messages)


def machine(
    index: int, *, running: bool = True, upstream_port: int | None = None
) -> control.Machine:
    """Machine number `index`, below 16 million, with two ports; number 0 is the benchmarks' own.

    `upstream_port`: where its port 80 leads to on the loopback address; without it, to an address
    of its own, as in life.
    """
    own = f"127.{1 + (index >> 16)}.{index >> 8 & 255}.{index & 255}:{_NOBODY}"
    return control.Machine(
        # Of an id's length and letters, and in no order.
        id=machine_id(index),
        name=f"machine-{index}",
        status="running" if running else "stopped",
        lifecycle=1,
        ports=(
            control.Port(
                port=80, upstream=own if upstream_port is None else f"{HOST}:{upstream_port}"
            ),
            control.Port(port=8080, upstream=own),
        ),
    )


def machine_id(index: int) -> str:
    """The id of machine number `index`."""
    # A multiplication by an odd number reaches every number once.
    return MACHINE if index == 0 else f"{index * 0x9E3779B97F4B % 2**48:012x}"
