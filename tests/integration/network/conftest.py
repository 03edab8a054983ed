"""Networks by tap on a network of the test's own: loopback, and what the test adds."""

from __future__ import annotations

import os
import struct
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest

from hyperfleet.fleet.layout import known_launch
from hyperfleet.lifecycle import Status
from hyperfleet.machine import Machine, MachineSpec, new_machine_id
from hyperfleet.network.tap import TapConfig, TapNetwork
from hyperfleet.store.memory import MemoryStore
from hyperfleet.vmm.driver import LaunchSpec
from support.need import Need
from support.netns import own_network

NOW = datetime(2030, 1, 31, tzinfo=UTC)


class Home:
    """A home's record, and the control planes that are opened on it one after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = MemoryStore()
        self._open: list[TapNetwork] = []
        self._descriptors: list[int] = []

    async def network(self, **changes: Any) -> TapNetwork:
        """A control plane's; one before it is as good as dead."""
        made = self.unopened(**changes)
        await made.open(await self.store.all(), wanted=True)
        return made

    def unopened(self, **changes: Any) -> TapNetwork:
        """The same before it has looked at record and host."""
        fields: dict[str, Any] = {"home": self.folder, "subnet": IPv4Network("172.30.0.0/24")}
        made = TapNetwork(TapConfig(**{**fields, **changes}), self.store)
        self._open.append(made)
        return made

    async def machine(self, network: TapNetwork, **spec: Any) -> Machine:
        """One that is recorded as running; nothing of it is made."""
        machine_id = new_machine_id()
        machine = Machine(
            id=machine_id,
            spec=MachineSpec(
                name=f"m-{machine_id}",
                vcpu_count=1,
                mem_size_mib=64,
                kernel_image_path="kernel",
                rootfs_path="disk",
                **spec,
            ),
            status=Status.RUNNING,
            vmm="qemu",
            network=await network.assign(machine_id),
            created_at=NOW,
            updated_at=NOW,
        )
        await self.store.add(machine)
        return machine

    async def attached(self, network: TapNetwork, machine: Machine) -> int:
        """The descriptor that the machine's process would have."""
        (descriptor,) = (await network.attach(launch(machine))).inherited
        self._descriptors.append(descriptor)
        return descriptor

    def sends(self, descriptor: int, frame: bytes) -> None:
        """What the machine's guest sends."""
        # Before it comes struct virtio_net_hdr, ten bytes (tuntap.rst, IFF_VNET_HDR).
        os.write(descriptor, struct.pack("10x") + frame)

    def end(self, descriptor: int) -> None:
        """The machine's process is no more."""
        self._descriptors.remove(descriptor)
        os.close(descriptor)

    async def close(self) -> None:
        for network in self._open:
            await network.close()
        for descriptor in self._descriptors:
            os.close(descriptor)


def launch(machine: Machine) -> LaunchSpec:
    return known_launch(machine, Path("none"))


@pytest.fixture
def apart() -> Iterator[None]:
    for program in ("ip", "nft"):
        Need()(program)
    with own_network():
        yield


@pytest.fixture
async def home(apart: None, tmp_path: Path) -> AsyncIterator[Home]:
    made = Home(tmp_path)
    yield made
    await made.close()
