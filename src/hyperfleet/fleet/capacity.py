"""What a host can promise to machines, and whether one more fits. Pure."""

from __future__ import annotations

import msgspec

from hyperfleet.lifecycle import ALIVE
from hyperfleet.machine import Machine, MachineSpec


class Room(msgspec.Struct, frozen=True, kw_only=True):
    """What all machines together may be promised."""

    mem_mib: int
    vcpus: int


class Need(msgspec.Struct, frozen=True):
    """What one machine is promised while it runs."""

    mem_mib: int
    vcpus: int


def room_of(
    *, host_mib: int, host_cpus: int, reserve_mib: int, mem_percent: int, cpu_percent: int
) -> Room:
    """A host's room: its memory without the reserve, and its CPUs, each times its overcommit."""
    return Room(
        mem_mib=max(0, host_mib - reserve_mib) * mem_percent // 100,
        vcpus=host_cpus * cpu_percent // 100,
    )


def need_of(spec: MachineSpec) -> Need:
    """What a machine needs."""
    return Need(spec.mem_size_mib, spec.vcpu_count)


def holds(machine: Machine) -> bool:
    """Whether a machine has its need promised: it has a process, or is to be started by itself."""
    return machine.status in ALIVE or machine.next_start_at is not None


class Promises:
    """What each machine is promised, and the sums, so that one more start costs what one does."""

    def __init__(self) -> None:
        self._of: dict[str, Need] = {}
        self.mem_mib = 0
        self.vcpus = 0

    def __len__(self) -> int:
        return len(self._of)

    def __contains__(self, machine_id: str) -> bool:
        return machine_id in self._of

    def keep(self, machine_id: str, need: Need) -> None:
        """The machine is promised this, whatever it was before."""
        self.free(machine_id)
        self._of[machine_id] = need
        self.mem_mib += need.mem_mib
        self.vcpus += need.vcpus

    def free(self, machine_id: str) -> None:
        """The machine is promised nothing; no error when it was not."""
        need = self._of.pop(machine_id, None)
        if need is not None:
            self.mem_mib -= need.mem_mib
            self.vcpus -= need.vcpus


def shortage(room: Room, given: Promises, asked: Need) -> str | None:
    """What is short for one more, in numbers; None: it fits."""
    short = []
    if given.mem_mib + asked.mem_mib > room.mem_mib:
        short.append(
            f"memory: {asked.mem_mib} MiB are asked for, "
            f"{max(0, room.mem_mib - given.mem_mib)} of {room.mem_mib} MiB are left"
        )
    if given.vcpus + asked.vcpus > room.vcpus:
        short.append(
            f"CPUs: {asked.vcpus} virtual ones are asked for, "
            f"{max(0, room.vcpus - given.vcpus)} of {room.vcpus} are left"
        )
    if not short:
        return None
    return f"{'; '.join(short)}; {len(given)} machines run or start: stop one, or try again later"
