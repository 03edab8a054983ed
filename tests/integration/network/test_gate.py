"""The gate and passt, with a guest that is nothing but bytes: who is reached, whatever it names.

The host is a network of the test's own, and so is the internet behind it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from hyperfleet import binaries
from hyperfleet.errors import GuestError
from hyperfleet.network import gate
from hyperfleet.network.gate import Gates
from support import frames
from support.need import Need
from support.netns import Far, own_network, run, taps

pytestmark = taps

MAC = "56:00:00:00:00:01"
INTERNET, ELSEWHERE, METADATA = "192.0.2.2", "198.51.100.7", "169.254.169.254"
HOST, BRIDGE = "192.0.2.1", "203.0.113.1"
LET_IN = 5432
ADDRESS = gate.ADDRESS.partition("/")[0]


class Guest:
    """Speaks Ethernet over QEMU's stream."""

    def __init__(self, stream: int) -> None:
        self._socket = socket.socket(fileno=stream)
        self._socket.settimeout(10)
        self._input = self._socket.makefile("rb")
        self._port = 20000
        self.send(frames.arp(1, mac=MAC, ip=ADDRESS, of=gate.GATEWAY))
        answer = self._until(lambda frame: frame[12:14] == b"\x08\x06")
        self.gateway = answer[6:12].hex(":")

    def send(self, frame: bytes) -> None:
        self._socket.sendall(len(frame).to_bytes(4, "big") + frame)

    def tcp(self, to: str, port: int, *, ip: str = ADDRESS) -> str:
        """What comes of a connection: `open` or `refused`."""
        self._port += 1
        own = self._port
        self.send(frames.syn(mac=MAC, to_mac=self.gateway, ip=ip, to=to, port=port, from_port=own))

        def is_answer(frame: bytes) -> bool:
            return frame[23] == socket.IPPROTO_TCP and frame[36:38] == own.to_bytes(2, "big")

        flags = self._until(is_answer)[47]
        # Both acknowledge: a reset that does not is one that no guest believes.
        return {0x12: "open", 0x14: "refused"}[flags]

    def udp(self, to: str, port: int, word: str) -> None:
        self.send(frames.udp(word, mac=MAC, to_mac=self.gateway, ip=ADDRESS, to=to, port=port))

    def prohibited(self, to: str, port: int) -> bool:
        """Whether a datagram is answered by ICMP's word that it may not pass."""
        self.udp(to, port, "word")
        return self._until(lambda frame: frame[23] == socket.IPPROTO_ICMP)[34:36] == b"\x03\x0d"

    def close(self) -> None:
        self._input.close()
        self._socket.close()

    def _until(self, wanted: Callable[[bytes], bool]) -> bytes:
        while True:
            length = int.from_bytes(self._input.read(4), "big")
            frame = self._input.read(length)
            if wanted(frame):
                return frame


@pytest.fixture
def far(need: Need) -> Iterator[Far]:
    for program in ("passt", "ip", "nsenter"):
        need(program)
    with own_network():
        made = Far(f"{INTERNET}/24", f"{ELSEWHERE}/32", f"{METADATA}/32", near=f"{HOST}/24")
        try:
            # A bridge such as Docker's.
            run("ip", "link", "add", "bridge", "type", "veth", "peer", "name", "port")
            run("ip", "address", "add", f"{BRIDGE}/24", "dev", "bridge")
            run("ip", "link", "set", "port", "up")
            run("ip", "link", "set", "bridge", "up")
            yield made
        finally:
            made.close()


@pytest.fixture
async def guest(far: Far, tmp_path: Path) -> AsyncIterator[Guest]:
    gates = Gates(binaries.gate, host_ports=(LET_IN,))
    made = Guest(await gates.open(tmp_path, MAC))
    yield made
    made.close()
    await processes_end(tmp_path)
    gates.close()


@contextlib.contextmanager
def listening(*addresses: tuple[str, int]) -> Iterator[None]:
    """Servers that accept, as the kernel does for them."""
    with contextlib.ExitStack() as stack:
        for address in addresses:
            stack.enter_context(socket.create_server(address))
        yield


async def test_the_internet_is_reached_and_the_host_is_not(guest: Guest, far: Far) -> None:
    everywhere = ("0.0.0.0", 8080)
    with listening(everywhere, ("127.0.0.1", 9001), (HOST, 9002), (BRIDGE, 9003)):
        rows = [
            ("the internet", INTERNET, 80, "open"),
            ("the internet, nobody there", INTERNET, 81, "refused"),
            ("the internet, elsewhere", ELSEWHERE, 443, "open"),
            ("loopback by its own name", "127.0.0.1", 9001, "refused"),
            ("loopback, another address", "127.44.5.6", 8080, "refused"),
            ("no address", "0.0.0.0", 8080, "refused"),
            ("loopback by the gateway", gate.GATEWAY, 9001, "refused"),
            ("loopback by the gateway", gate.GATEWAY, 8080, "refused"),
            ("the host's own address", HOST, 9002, "refused"),
            ("all of the host's addresses", HOST, 8080, "refused"),
            ("a bridge of the host's", BRIDGE, 9003, "refused"),
            ("all, by the bridge", BRIDGE, 8080, "refused"),
            ("the resolver, another port", gate.DNS, 8080, "refused"),
            ("a cloud's metadata", METADATA, 80, "refused"),
        ]
        seen = [guest.tcp(to, port) for _, to, port, _ in rows]
        assert [*zip(rows, seen, strict=True)] == [(row, row[-1]) for row in rows]
        # Whoever the guest says it is.
        for lie in ("127.0.0.1", HOST, "10.9.9.9"):
            assert guest.tcp("127.0.0.1", 9001, ip=lie) == "refused"
    assert far.ask("heard") == ""


async def test_a_port_that_is_let_in_is_reached_at_the_gateway_only(guest: Guest) -> None:
    with listening(("127.0.0.1", LET_IN)):
        assert guest.tcp(gate.GATEWAY, LET_IN) == "open"
        assert guest.tcp("127.0.0.1", LET_IN) == "refused"
    assert guest.tcp(gate.GATEWAY, LET_IN) == "refused"


async def test_an_address_that_the_host_gets_later_is_its_own(guest: Guest) -> None:
    later = "192.0.2.77"
    run("ip", "address", "add", f"{later}/24", "dev", "out0")
    with listening((later, 9004)):
        assert guest.tcp(later, 9004) == "refused"


async def test_datagrams_and_names(guest: Guest, far: Far) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as host:
        host.bind(("0.0.0.0", 5353))
        host.setblocking(False)
        for to in ("127.0.0.1", HOST, BRIDGE, gate.GATEWAY):
            assert guest.prohibited(to, 5353), to
        with pytest.raises(BlockingIOError):
            host.recv(1)
    guest.udp(INTERNET, 53, "out")
    assert await asyncio.to_thread(heard, far) == f"out@{HOST}"


def heard(far: Far) -> str:
    """What comes there next."""
    while not (words := far.ask("heard")):
        pass
    return words


async def test_names_are_asked_of_a_resolver_on_loopback(far: Far, tmp_path: Path) -> None:
    """As systemd-resolved is; /etc/resolv.conf is looked at in a mount namespace of the test's."""
    told = tmp_path / "resolv.conf"
    told.write_text("nameserver 127.0.0.53\n")
    wrapper = tmp_path / "passt"
    mounted = f'mount --bind {told} /etc/resolv.conf && exec passt "$@"'
    wrapper.write_text(f"#!/bin/sh\nexec unshare -m sh -c '{mounted}' sh \"$@\"\n")
    wrapper.chmod(0o755)
    gates = Gates(binaries.gate, passt=str(wrapper))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as resolver:
        resolver.bind(("127.0.0.53", 53))
        resolver.settimeout(10)
        guest = Guest(await gates.open(tmp_path, MAC))
        guest.udp(gate.DNS, 53, "name")
        assert await asyncio.to_thread(resolver.recv, 100) == b"name"
        guest.close()
        await processes_end(tmp_path)
    gates.close()


async def test_both_end_with_qemu_and_qemu_is_told_of_their_end(far: Far, tmp_path: Path) -> None:
    gates = Gates(binaries.gate)
    stream = await gates.open(tmp_path, MAC)
    found = processes(tmp_path)
    assert sorted(name for _, name in found) == ["hyperfleet-gate", "passt"]
    for pid, _ in found:
        assert is_nobody(pid)
    os.close(stream)
    await processes_end(tmp_path)

    stream = await gates.open(tmp_path, MAC)
    pid = next(pid for pid, name in processes(tmp_path) if name == "hyperfleet-gate")
    os.kill(pid, 9)
    with socket.socket(fileno=stream) as qemu:
        qemu.settimeout(10)
        assert await asyncio.to_thread(qemu.recv, 1) == b""
    await processes_end(tmp_path)
    gates.close()


async def test_where_nothing_leads_out_it_says_so(need: Need, tmp_path: Path) -> None:
    need("passt")
    with own_network():
        gates = Gates(binaries.gate)
        with pytest.raises(GuestError, match=r"passt is not there: it ended .*interface"):
            await gates.open(tmp_path, MAC)
        await processes_end(tmp_path)
    with pytest.raises(GuestError, match=r"Debian: passt"):
        await Gates(binaries.gate, passt=str(tmp_path / "nowhere")).open(tmp_path, MAC)


async def test_its_end_is_waited_for_and_reaped(far: Far, tmp_path: Path) -> None:
    gates = Gates(binaries.gate)
    os.close(await gates.open(tmp_path, MAC))
    await gates.ended(tmp_path)
    assert processes(tmp_path) == []
    # Of one that there never was, too.
    await gates.ended(tmp_path / "other")
    gates.close()


async def test_one_that_is_called_off_leaves_nothing(far: Far, tmp_path: Path) -> None:
    gates = Gates(binaries.gate)
    opening = asyncio.create_task(gates.open(tmp_path, MAC))
    # Its thread has begun.
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    await processes_end(tmp_path)
    gates.close()


def is_nobody(pid: int) -> bool:
    """Neither root nor able to become it."""
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    return "0" not in status["Uid"].split() and status["NoNewPrivs"] == "1"


def processes(directory: Path) -> list[tuple[int, str]]:
    """The gate whose words go to a file there, and its passt."""
    log = directory / gate.LOG
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            if (entry / "fd/2").samefile(log) and (entry / "stat").read_text().split()[2] != "Z":
                name = Path((entry / "cmdline").read_bytes().split(b"\0")[0].decode()).name
                found.append((int(entry.name), name))
    return found


async def processes_end(directory: Path) -> None:
    async with asyncio.timeout(10):
        while await asyncio.to_thread(processes, directory):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
