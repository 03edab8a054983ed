"""A bench for each kind of network: real machines that are attached by it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from datetime import UTC, datetime
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from hyperfleet import binaries
from hyperfleet.lifecycle import Status
from hyperfleet.machine import Egress, Machine, MachineSpec, new_machine_id
from hyperfleet.network.gate import Gates
from hyperfleet.network.interface import Network, Networks
from hyperfleet.network.tap import TapConfig, TapNetwork
from hyperfleet.network.user import UserNetwork
from hyperfleet.store.memory import MemoryStore
from hyperfleet.vmm.driver import LaunchSpec
from hyperfleet.vmm.qemu import QemuDriver
from support.bench import BOOT_S, Bench, Guest, qemu_driver, templates_in
from support.images import FILES
from support.need import Need
from support.netns import own_network, taps


def _user(home: Path) -> Network:
    return UserNetwork(Gates(binaries.gate))


def _tap(home: Path) -> Network:
    Need()("nft")
    config = TapConfig(home=home, subnet=IPv4Network("172.30.0.0/16"))
    return TapNetwork(config, MemoryStore())


# Kind, and whether it is tried on a network of the test's own.
KINDS: dict[str, tuple[Callable[[Path], Network], bool]] = {
    "user": (_user, False),
    "tap": (_tap, True),
}


class Joined:
    """A home's control planes, one after the other, on one kind of network."""

    def __init__(self, make: Callable[[Path], Network], home: Path) -> None:
        self._make = make
        self._home = home
        self._bench: Bench | None = None
        self.network = make(home)
        self.launches: list[LaunchSpec] = []
        qemu_driver()  # skips where real machines can't be had

    async def open(self, machines: Collection[Machine] = ()) -> None:
        """A new control plane, with what the record says, after the one before it has let go."""
        if self._bench is not None:
            await self.network.close()
        self.network = self._make(self._home)
        networks = Networks(self.network)
        await networks.open(machines)
        self.driver = QemuDriver(
            networks=networks,
            kvm=False,
            confine=binaries.confine,
            templates=templates_in(self._home, most=2),
        )
        self._bench = Bench(self.driver, self._home, FILES)

    async def launch(self, egress: Egress = "all") -> LaunchSpec:
        assert self._bench is not None
        machine_id = new_machine_id()
        network = await self.network.assign(machine_id)
        launch = self._bench.launch(id=machine_id, network=network, egress=egress)
        self.launches.append(launch)
        return launch

    async def start(self, launch: LaunchSpec) -> Guest:
        """Its machine, which has been told about its card."""
        guest = await Guest.of(await self.driver.start(launch))
        await guest.agent.configure("web", self.network.introduce(launch.network), BOOT_S)
        return guest

    async def close(self) -> None:
        for launch in self.launches:
            await self.driver.remove(launch)
        await self.driver.close()
        await self.network.close()


def recorded(launch: LaunchSpec) -> Machine:
    """As a running machine would be found in the record."""
    moment = datetime.now(UTC)
    return Machine(
        id=launch.id,
        spec=MachineSpec(
            name=launch.name,
            vcpu_count=launch.vcpu_count,
            mem_size_mib=launch.mem_size_mib,
            kernel_image_path="kernel",
            rootfs_path="disk",
            exposed_ports=launch.ports,
            egress=launch.egress,
        ),
        status=Status.RUNNING,
        vmm="qemu",
        network=launch.network,
        created_at=moment,
        updated_at=moment,
    )


@pytest.fixture(params=["user", pytest.param("tap", marks=taps)])
def surroundings(request: pytest.FixtureRequest) -> Iterator[Callable[[Path], Network]]:
    """What makes the kind, where it may be tried."""
    make, apart = KINDS[request.param]
    with own_network() if apart else contextlib.nullcontext():
        yield make


@pytest.fixture
async def joined(surroundings: Callable[[Path], Network], tmp_path: Path) -> AsyncIterator[Joined]:
    made = Joined(surroundings, tmp_path)
    await made.open()
    yield made
    await made.close()
