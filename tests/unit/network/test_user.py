"""User networking: what QEMU is told, and what it says."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import msgspec
import pytest

from hyperfleet.errors import GuestError
from hyperfleet.machine import new_machine_id
from hyperfleet.network import user
from hyperfleet.network.gate import Gates
from hyperfleet.network.interface import guest_mac, host_address
from hyperfleet.network.user import UserNetwork
from hyperfleet.vmm.driver import LaunchSpec

ID = "abc123def456"
LAUNCH = LaunchSpec(
    id=ID,
    name="web",
    directory=Path("machine"),
    vcpu_count=1,
    mem_size_mib=128,
    kernel=Path("kernel"),
    initramfs=Path("initramfs"),
    kernel_args=None,
    base_disk=Path("disk"),
    network=user.assigned(ID),
    ports=(80, 8080),
)
HERE = host_address(ID)
USERNET = """Hub -1 (n0):\r
  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r
  TCP[ESTABLISHED]   16       10.0.2.15 33456    93.184.216.34   443     0     0\r
  TCP[HOST_FORWARD]  13       127.0.0.1 34567       10.0.2.15    80     0     0\r
  UDP[236 sec]       14       10.0.2.15 50000        10.0.2.3    53     0     0\r
  TCP[HOST_FORWARD]  12       127.0.0.1 40001       10.0.2.15  8080     0     0\r
"""


class Monitor:
    """Answers as QEMU's human monitor does."""

    def __init__(self, *, refuses: str = "") -> None:
        self.said: list[str] = []
        self._refuses = refuses

    async def __call__(self, line: str) -> str:
        self.said.append(line)
        return USERNET if line == "info usernet" else self._refuses


def test_forwards_are_read_from_info_usernet() -> None:
    assert user.parse_forwards(USERNET) == {80: "127.0.0.1:34567", 8080: "127.0.0.1:40001"}
    assert user.parse_forwards("") == {}


async def test_a_forward_is_asked_for_and_found() -> None:
    monitor = Monitor()
    assert await UserNetwork().forward(monitor, LAUNCH, 8080) == "127.0.0.1:40001"
    assert monitor.said == [f"hostfwd_add n0 tcp:{HERE}:0-:8080", "info usernet"]


async def test_a_refused_forward_says_why() -> None:
    monitor = Monitor(refuses="Could not set up host forwarding rule 'tcp::80-:80'\r\n")
    with pytest.raises(GuestError, match="no way in to port 8080: Could not set up"):
        await UserNetwork().forward(monitor, LAUNCH, 8080)


async def test_a_forward_is_taken_away_by_its_host_address() -> None:
    monitor = Monitor()
    await UserNetwork().unforward(monitor, LAUNCH, 80, "127.0.0.1:34567")
    assert monitor.said == ["hostfwd_remove n0 tcp:127.0.0.1:34567"]


async def test_every_port_has_a_way_in_from_the_start_and_nothing_goes_out_there() -> None:
    (card,) = (await UserNetwork().attach(LAUNCH)).cards
    forwards = f"hostfwd=tcp:{HERE}:0-:80,hostfwd=tcp:{HERE}:0-:8080"
    assert card.backend.endswith(f",ipv6=off,restrict=on,{forwards}")
    assert card.mac == guest_mac(ID)


class FakeGates(Gates):
    """Gives a number, or says why not."""

    def __init__(self, why: str | None = None) -> None:
        super().__init__(Path)
        self.why = why
        self.asked: list[tuple[Path, str]] = []
        self.cgroups: list[Path | None] = []

    async def open(self, directory: Path, mac: str, cgroup: Path | None = None) -> int:
        self.asked.append((directory, mac))
        self.cgroups.append(cgroup)
        if self.why is not None:
            raise GuestError(self.why)
        return 77


async def test_a_way_out_is_a_card_of_its_own() -> None:
    gates = FakeGates()
    network = UserNetwork(gates)
    joint = await network.attach(LAUNCH)
    assert joint.inherited == (77,)
    outward = joint.cards[1]
    assert outward.backend == "stream,id=n1,server=off,addr.type=fd,addr.str=77"
    told = network.introduce(LAUNCH.network)
    assert told.outward is not None
    assert outward.mac == told.outward.mac
    # How a clone's cards are told from each other.
    assert None is not told.found_as != told.outward.found_as is not None
    assert gates.asked == [(LAUNCH.directory, told.outward.mac)]
    assert told.mac != told.outward.mac


async def test_a_machine_without_egress_has_none() -> None:
    gates = FakeGates()
    launch = msgspec.structs.replace(LAUNCH, egress="none")
    joint = await UserNetwork(gates).attach(launch)
    assert (joint.inherited, gates.asked) == ((), [])


async def test_where_there_can_be_none_it_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    gates = FakeGates("passt is not installed (Debian: passt)")
    network = UserNetwork(gates)
    for _ in range(3):
        joint = await network.attach(LAUNCH)
        assert joint.inherited == ()
        assert len(joint.cards) == 1
    told = (
        f"machines have no way out, only ways in, from machine web on: {gates.why};"
        " `hyperfleet doctor` says what is missing"
    )
    assert [record.message for record in caplog.records] == [told]


def test_no_two_machines_share_an_address_of_the_hosts() -> None:
    ids = [new_machine_id() for _ in range(200)]
    addresses = {host_address(one) for one in ids}
    # 200 of 16 million: two alike once in 800 runs, and it takes the same port besides.
    assert len(addresses) >= len(ids) - 1
    for address in map(IPv4Address, addresses):
        assert address.is_loopback
        assert address not in IPv4Network("127.0.0.0/16")
        assert address.packed[3] not in (0, 255)


def test_a_hardware_address_is_local_unicast_and_steady() -> None:
    ids = [new_machine_id() for _ in range(200)]
    addresses = {guest_mac(one) for one in ids}
    assert len(addresses) == len(ids)
    assert guest_mac(ids[0]) == guest_mac(ids[0])
    for address in addresses:
        octets = [int(octet, 16) for octet in address.split(":")]
        assert len(octets) == 6
        assert octets[0] & 0b11 == 0b10
