"""Guests that lie and clients that do not read, against a whole server: nobody else is harmed.

What a guest did is known afterwards. The driver is the fake: the liars are in the server's own
process, so what they hold counts too.
"""

from __future__ import annotations

import contextlib
import re
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import httpx
import pytest

from support import plain, proxy, table
from support.need import Need
from support.server import Server
from support.soak import checks, reality
from support.zygote import Zygote

# The most that the server may have had while a guest lied, beyond what it had before. A session's
# beginning may bring 2 MiB; the rest is what a frame, its message and its text take.
MOST_MIB = 24
# Seconds; a busy host is slow. What was measured is printed.
PATIENCE = 60.0
# Calls to the other machine while a guest lies, at least.
ROUNDS = 5
# What a console holds at most, and how many ask for all of it.
CONSOLE_BYTES = 16 * 1024 * 1024
CLIENTS = 8
# Characters of what is written down.
MOST_WORDS = 1100

BREACH = "the guest broke the agent's protocol: "
# Each lie, told by a guest that was sound until then, and what is written down of it.
LIES = {
    "floods": r"an answer to a call that was never made|\d+ bytes and no welcome",
    "garbage": "corrupt frame",
    "endless": "frame is larger than 262144 bytes",
    "overlong": "frame is larger than 262144 bytes",
    "claims": "message not understood: ",
    "unasked": "an answer to a call that was never made",
    "disorder": "an answer to a call that was never made",
    "version": "framing version 2, this side speaks 1|version 2, which it was not offered",
    "ports": "message not understood: .* length <= 2048",
    "output": "more output than was asked for",
    "escapes": "message not understood: Invalid value ",
}
# Of those that are told at the first question, what the start comes to.
AT_ONCE = {
    "floods": r"\d+ bytes and no welcome",
    "endless": "frame is larger than 262144 bytes",
    "version": "version 2, which it was not offered",
}


@pytest.fixture(scope="module")
def server(need: Need, zygote: Zygote) -> Iterator[Server]:
    proxy.binary(need)
    with Server(zygote=zygote, HYPERFLEET_VMM="fake") as made:
        made.create("good", exposed_ports=[80], kernel_args="fake.listens=80")
        made.start_machine("good")
        made.sh("good", "echo sound > /index.html")
        yield made


@pytest.fixture(scope="module")
def rows(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    heading = f"{'lie':9} {'written down':>12} {'memory':>9} {'others wait':>11}  as"
    with table.printed(request, heading) as found:
        yield found


@pytest.mark.parametrize("lie", LIES)
def test_a_guest_that_turns(server: Server, rows: list[str], lie: str) -> None:
    server.create(lie, exposed_ports=[80])
    assert server.start_machine(lie)["guest_fault"] is None
    server.sh(lie, "httpd -p 80")
    before = _start_measuring(server)

    begun = time.monotonic()
    # What it says of this call is its first lie.
    script = f"turn {lie}; echo said"
    answer = server.api.post(f"/machines/{lie}/exec", json={"cmd": ["sh", "-c", script]})
    seconds = 0.0
    waits: list[float] = []
    while not seconds or len(waits) < ROUNDS:
        waits.append(_others_are_served(server))
        liar = server.api.get(f"/machines/{lie}").json()
        if not seconds and liar["guest_fault"] is not None:
            seconds = time.monotonic() - begun
        assert time.monotonic() < begun + PATIENCE, liar
    most = (_most(server) - before) / 2**20

    fault = liar["guest_fault"]
    assert re.fullmatch(f"{BREACH}(?:{LIES[lie]}).*", fault), fault
    assert fault.isprintable()
    assert len(fault) < MOST_WORDS
    assert answer.is_success or answer.json()["error"]["message"].isprintable()
    # It runs on, and what it serves does not go through its agent.
    assert liar["status"] == "running"
    assert plain.get(f"{server.proxy_url}/proxy/{lie}/80/").status_code == httpx.codes.NOT_FOUND
    assert server.api.get("/machines/good").json()["guest_fault"] is None
    assert most < MOST_MIB
    assert max(waits) < PATIENCE / 4
    told = fault.removeprefix(BREACH)[:50]
    rows.append(f"{lie:9} {seconds:10.2f} s {most:5.1f} MiB {max(waits) * 1000:8.0f} ms  {told}")


@pytest.mark.parametrize("lie", AT_ONCE)
def test_a_guest_that_lies_from_the_first_word(server: Server, lie: str) -> None:
    name = f"{lie}-at-once"
    server.create(name, exposed_ports=[80], kernel_args=f"fake.channel={lie}")
    before = _start_measuring(server)
    started = server.api.post(f"/machines/{name}/start")
    liar = server.api.get(f"/machines/{name}").json()
    assert started.json()["error"]["code"] == "GUEST_ERROR"
    assert liar["status"] == "failed"
    assert re.search(AT_ONCE[lie], liar["error_message"]), liar["error_message"]
    assert liar["error_message"].isprintable()
    assert (_most(server) - before) / 2**20 < MOST_MIB
    _others_are_served(server)


def test_clients_that_do_not_read(server: Server) -> None:
    """They ask for the largest answer there is, and take none of it."""
    machine = server.create("talks")
    server.start_machine("talks")
    said = b"caf\xc3\xa9 \xff\n" * (CONSOLE_BYTES // 8)
    (server.home / "machines" / machine["id"] / "console.log").write_bytes(said)
    request = (
        f"GET /machines/talks/logs HTTP/1.1\r\nHost: h\r\nConnection: close\r\n"
        f"Authorization: Bearer {server.key}\r\n\r\n"
    ).encode()
    before = _start_measuring(server)
    with contextlib.ExitStack() as opened:
        clients = [opened.enter_context(_narrow(server)) for _ in range(CLIENTS)]
        for client in clients:
            client.sendall(request)
        for client in clients:
            # It is being answered.
            assert client.recv(17) == b"HTTP/1.1 200 OK\r\n"
        waits = [_others_are_served(server) for _ in range(ROUNDS)]
        assert (_most(server) - before) / 2**20 < MOST_MIB
        assert max(waits) < PATIENCE / 4
        # Who reads on after all misses nothing.
        with clients[0].makefile("rb") as rest:
            body = _chunks(rest)
        assert body.decode() == said.decode(errors="replace")


def test_nothing_is_left_of_them(server: Server) -> None:
    """After all others: each machine that has lied is deleted, all at once."""
    names = [one["name"] for one in reality.listed(server) if one["name"] != "good"]
    with ThreadPoolExecutor(max_workers=len(names) or 1) as pool:
        asked = [
            pool.submit(server.api.delete, f"/machines/{name}", params={"force": "true"})
            for name in names
        ]
        waits = [_others_are_served(server)]
        while not all(one.done() for one in asked):
            waits.append(_others_are_served(server))
    assert {one.result().status_code for one in asked} <= {httpx.codes.NO_CONTENT}
    assert max(waits) < PATIENCE / 4
    found = reality.seen(server)
    assert [one["name"] for one in found.machines] == ["good"]
    assert checks.leftovers(found) == checks.disagreements(found) == []
    for name in names:
        route = plain.get(f"{server.proxy_url}/proxy/{name}/80/")
        assert route.json() == {"error": "Machine not found"}
    # Nothing of a guest's moves the terminal of whoever reads the log.
    said = server.log.read_text()
    assert [line for line in said.split("\n") if not line.isprintable()] == []


def _others_are_served(server: Server) -> float:
    """Seconds that the slowest of some calls took that are not about a liar."""
    slowest, begun = 0.0, time.monotonic()
    acts: tuple[tuple[Callable[[], str], str], ...] = (
        (lambda: server.sh("good", "echo heard"), "heard\n"),
        (lambda: server.api.get("/machines/good").json()["name"], "good"),
        (lambda: plain.get(f"{server.proxy_url}/proxy/good/80/").text, "sound\n"),
    )
    for act, right in acts:
        assert act() == right
        slowest, begun = max(slowest, time.monotonic() - begun), time.monotonic()
    return slowest


def _narrow(server: Server) -> socket.socket:
    """A connection that takes little at a time."""
    client = socket.socket()
    client.settimeout(PATIENCE)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", server.api_port))
    return client


def _chunks(answer: IO[bytes]) -> bytes:
    """The body of an answer that comes in chunks (RFC 9112, 7.1), from within its head on."""
    while answer.readline() != b"\r\n":
        pass
    body = bytearray()
    while size := int(answer.readline(), 16):
        body += answer.read(size)
        assert answer.readline() == b"\r\n"
    return bytes(body)


def _start_measuring(server: Server) -> int:
    """Bytes that the server has; `_most` tells of what comes after (proc(5), clear_refs)."""
    Path(f"/proc/{server.pid}/clear_refs").write_text("5")
    return _status(server, "VmRSS")


def _most(server: Server) -> int:
    return _status(server, "VmHWM")


def _status(server: Server, name: str) -> int:
    text = Path(f"/proc/{server.pid}/status").read_text()
    found = re.search(rf"^{name}:\s+(\d+) kB$", text, re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024
