"""How large a machine may be on this host."""

from __future__ import annotations

import os
from pathlib import Path

from hyperfleet.errors import ValidationError
from hyperfleet.fleet.config import FleetConfig
from hyperfleet.machine import MachineSpec
from hyperfleet.vmm.driver import Driver


def check(spec: MachineSpec, config: FleetConfig, driver: Driver) -> None:
    """Whether the host could ever give what a machine asks for.

    Raises:
        ValidationError: it could not.
    """
    most_cpus = config.largest_vcpu_count or os.cpu_count() or 1
    if not 1 <= spec.vcpu_count <= most_cpus:
        raise ValidationError(f"vcpu_count: must be from 1 to {most_cpus} on this host")
    least, most = driver.least_mem_mib, config.largest_mem_size_mib
    if most is None:
        most = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20
    if not least <= spec.mem_size_mib <= most:
        raise ValidationError(
            f"mem_size_mib: must be from {least} (the {driver.name} driver's least) "
            f"to {most} on this host"
        )


def check_disk(spec: MachineSpec, image: Path) -> None:
    """Whether the machine's disk is large enough for its image, where that is a file.

    Raises:
        ValidationError: it is not.
    """
    if spec.disk_size_mib is None or not image.is_file():
        return
    least = -(-image.stat().st_size >> 20)
    if spec.disk_size_mib < least:
        raise ValidationError(
            f"disk_size_mib: must be at least {least}, the size of {spec.rootfs_path}"
        )
