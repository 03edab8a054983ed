"""The internet of a test: a program on a network of its own, steered by lines on its input.

`serve`            opens its servers: TCP on 80, 443 and 7000, UDP on 53
`heard`            what UDP has brought since it was last asked, words from senders: `word@address`
`tcp ADDRESS PORT` connects there itself: `open`, `refused` or `silent`
"""

from __future__ import annotations

import ctypes
import queue
import socket
import sys
import threading
from contextlib import suppress

_CLONE_NEWNET = 0x40000000
_PATIENCE_S = 2.0


def main() -> None:
    """Until its input ends."""
    heard: queue.Queue[str] = queue.Queue()
    if ctypes.CDLL(None).unshare(_CLONE_NEWNET) != 0:
        sys.exit("no network namespace")
    _say("ready")
    for line in sys.stdin:
        match line.split():
            case ["serve"]:
                for port in (80, 443, 7000):
                    listener = socket.create_server(("0.0.0.0", port))
                    threading.Thread(target=_accept, args=(listener,), daemon=True).start()
                listens = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                listens.bind(("0.0.0.0", 53))
                threading.Thread(target=_hear, args=(listens, heard), daemon=True).start()
                _say("serving")
            case ["heard"]:
                words = []
                with suppress(queue.Empty):
                    while True:
                        words.append(heard.get_nowait())
                _say(" ".join(words))
            case ["tcp", address, port]:
                _say(connect(address, int(port)))


def connect(address: str, port: int) -> str:
    """How a connection goes."""
    try:
        socket.create_connection((address, port), timeout=_PATIENCE_S).close()
    except TimeoutError:
        return "silent"
    except OSError:
        return "refused"
    return "open"


def _accept(listener: socket.socket) -> None:
    while True:
        connection, peer = listener.accept()
        threading.Thread(target=_echo, args=(connection, peer[0]), daemon=True).start()


def _echo(connection: socket.socket, peer: str) -> None:
    """Says whom it sees, then all it hears."""
    with connection, suppress(OSError):
        connection.sendall(f"{peer}\n".encode())
        while data := connection.recv(65536):
            connection.sendall(data)


def _hear(listens: socket.socket, heard: queue.Queue[str]) -> None:
    while True:
        data, (address, port) = listens.recvfrom(2048)
        heard.put(f"{data.decode(errors='replace').strip()}@{address}")
        with suppress(OSError):
            listens.sendto(data, (address, port))


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
