"""The API's listening socket."""

from __future__ import annotations

import socket

from hyperfleet.server import ports


def test_what_is_written_to_a_client_does_not_wait_for_its_acknowledgements() -> None:
    with (
        ports.listen("PORT", "127.0.0.1", 0) as listener,
        socket.create_connection(listener.getsockname()),
    ):
        listener.setblocking(True)
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
