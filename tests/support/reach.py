"""Who reaches whom: real machines with perl in them, on a host of the test's own.

`guest.pl` is what a machine tries; servers stand on the host's addresses and out on the internet.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support import sockets
from support.netns import Far, own_network, run
from support.server import Server
from support.shared import SHARED

# Addresses for documentation (RFC 5737), on networks that a test makes.
INTERNET = "192.0.2.2"
ELSEWHERE = "198.51.100.7"
METADATA = "169.254.169.254"
HOST = "192.0.2.1"
HOST6 = "2001:db8::1"
# On all of the host's addresses; guests may reach the second.
SERVICE, ALLOWED, UDP = 8080, 5432, 5353
_SCRIPT = Path(__file__).with_name("guest.pl")


class World:
    """Who is there, and what each can try."""

    script = _SCRIPT.read_text()

    def __init__(self, server: Server, far: Far, host_udp: socket.socket) -> None:
        self.server = server
        self.far = far
        self._host_udp = host_udp
        self.machines: dict[str, dict[str, Any]] = {}

    def network(self, name: str) -> dict[str, str]:
        network: dict[str, str] = self.machines[name]["network"]
        return network

    def add(self, name: str, **fields: Any) -> None:
        """A machine that can try things, with a page on port 80."""
        self.server.create(
            name,
            mem_size_mib=160,
            rootfs_path=".hyperfleet/debian-rootfs.ext4",
            exposed_ports=[80],
            **fields,
        )
        self.machines[name] = self.server.start_machine(name)
        self.server.sh(name, "cat > /guest.pl", stdin=self.script)
        self.server.sh(name, f"echo {name} > /var/www/html/index.html && nginx")

    def tries(self, name: str, *acts: str) -> list[str]:
        """What comes of each; see guest.pl."""
        result = self.server.exec(
            name, "perl", "/guest.pl", stdin="\n".join(acts) + "\n", timeout=120
        )
        assert result["exit_code"] == 0, result
        output: str = result["stdout"]
        answers = output.splitlines()
        assert len(answers) == len(acts)
        return answers

    def host_heard(self) -> list[str]:
        """What UDP has brought to the host since it was last asked."""
        words = []
        with contextlib.suppress(BlockingIOError):
            while True:
                words.append(self._host_udp.recv(2048).decode())
        return words

    def change(self, name: str, egress: Any) -> None:
        answer = self.server.api.patch(f"/machines/{name}", json={"egress": egress})
        assert answer.status_code == 200, answer.text
        assert answer.json()["egress"] == egress or isinstance(egress, list)

    def another_user_tries(self, address: str, port: int) -> str:
        """What comes of a connection of somebody's on the host who is neither root nor the proxy.

        Python is not where everybody may read; perl is.
        """
        script = (
            "use IO::Socket::INET; $> = 4711; print IO::Socket::INET->new("
            f"PeerAddr => '{address}', PeerPort => {port}, Timeout => 2) ? 'open' : 'refused'"
        )
        done = subprocess.run(["perl", "-e", script], capture_output=True, text=True, check=True)
        return done.stdout

    def tables(self) -> str:
        return run("nft", "list", "tables")


@contextlib.contextmanager
def service(port: int) -> Iterator[None]:
    """A server of the host's on all its addresses, of both families."""
    with socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True) as listens:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, peer = listens.accept()
                    with connection, contextlib.suppress(OSError):
                        connection.sendall(f"{peer[0].removeprefix('::ffff:')}\n".encode())

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield
        finally:
            listens.shutdown(socket.SHUT_RDWR)
            thread.join()


@contextlib.contextmanager
def hosted(images: Path, **environment: str) -> Iterator[World]:
    """A server on a network of the test's own, with services of its host's and an internet."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(own_network())
        far = Far(f"{INTERNET}/24", f"{ELSEWHERE}/32", f"{METADATA}/32", near=f"{HOST}/24")
        stack.callback(far.close)
        run("ip", "address", "add", f"{HOST6}/64", "dev", "out0", "nodad")
        for port in (SERVICE, ALLOWED):
            stack.enter_context(service(port))
        host_udp = stack.enter_context(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
        host_udp.bind(("::", UDP))
        host_udp.setblocking(False)
        environment["HYPERFLEET_NETWORK_HOST_PORTS"] = str(ALLOWED)
        server = Server(images=images, within=None, zygote=None, templates=None, **environment)
        stack.callback(server.close)
        server.start()
        yield World(server, far, host_udp)


def listening(server: Server) -> set[int]:
    """The TCP ports that something listens on, on this thread's network."""
    tables = [Path(f"/proc/thread-self/net/{family}") for family in ("tcp", "tcp6")]
    found = {one.port for table in tables for one in sockets.listening(table)}
    assert {SERVICE, ALLOWED, server.api_port, server.proxy_port} <= found
    return found


class Matrix:
    """What was expected and what was seen, a row for each; printed at the end."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, str, str, str]] = []

    def row(self, who: str, whom: str, expected: str, seen: str) -> None:
        self.rows.append((who, whom, expected, seen))

    def tries(self, world: World, name: str, *asked: tuple[str, str, str]) -> None:
        """A row for each act of a machine's: whom it is for, the act, what is expected."""
        answers = world.tries(name, *(act for _, act, _ in asked))
        for (whom, _, expected), seen in zip(asked, answers, strict=True):
            self.row("machine", whom, expected, seen)

    @property
    def wrong(self) -> list[tuple[str, str, str, str]]:
        return [row for row in self.rows if row[2] != row[3]]

    def show(self, kind: str, request: pytest.FixtureRequest) -> None:
        """Tells the rows when the tests end."""
        heading = f"{f'by {kind}: who':21} {'whom':40} expected -> seen"
        rows = (f"{who:21} {whom:40} {wanted:8} -> {seen}" for who, whom, wanted, seen in self.rows)
        request.config.stash[SHARED].tell("\n".join((heading, *rows)))
