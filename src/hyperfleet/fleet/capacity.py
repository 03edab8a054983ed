"""What a host can promise to machines, and whether one more fits. Pure."""

from __future__ import annotations

from collections.abc import Iterable

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


def shortage(room: Room, promised: Iterable[Need], asked: Need) -> str | None:
    """What is short for one more, in numbers; None: it fits."""
    given = list(promised)
    mem, vcpus = sum(one.mem_mib for one in given), sum(one.vcpus for one in given)
    short = []
    if mem + asked.mem_mib > room.mem_mib:
        short.append(
            f"memory: {asked.mem_mib} MiB are asked for, "
            f"{max(0, room.mem_mib - mem)} of {room.mem_mib} MiB are left"
        )
    if vcpus + asked.vcpus > room.vcpus:
        short.append(
            f"CPUs: {asked.vcpus} virtual ones are asked for, "
            f"{max(0, room.vcpus - vcpus)} of {room.vcpus} are left"
        )
    if not short:
        return None
    return f"{'; '.join(short)}; {len(given)} machines run or start: stop one, or try again later"
