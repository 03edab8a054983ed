"""How much of the host's disk a machine's own can take: the size of a file that QEMU may make."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import pytest

from hyperfleet import binaries
from hyperfleet.vmm import confinement, qemu_disk
from support.bench import Bench
from support.need import Need

MIB = 1 << 20


def confined(disk: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Runs a program of QEMU's as its machine's process is: with the bound of this disk."""
    words = confinement.prefix(binaries.confine, None, confinement.largest_file(disk))
    return subprocess.run([*words, *command], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("mib", [64, 64 << 10])
def test_a_disk_that_is_written_to_its_end_is_within_the_bound(
    tmp_path: Path, need: Need, mib: int
) -> None:
    disk = tmp_path / qemu_disk.DISK
    # As long as it would be with every cluster written, all of them holes.
    options = "preallocation=metadata"
    subprocess.run(
        [need("qemu-img"), "create", "-q", "-f", "qcow2", "-o", options, str(disk), f"{mib}M"],
        check=True,
    )
    longest = disk.stat().st_size
    assert mib * MIB < longest <= confinement.largest_file(disk)
    done = confined(disk, need("qemu-io"), "-c", f"write {mib - 1}M 1M", str(disk))
    assert "wrote 1048576" in done.stdout


@pytest.mark.vm
async def test_a_guest_at_the_bound_has_an_error_and_runs_on(
    qemu: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bound = 8 * MIB
    monkeypatch.setattr(confinement, "largest_file", lambda disk: bound)
    launch = qemu.launch()
    guest = await qemu.start(launch)
    wrote = await guest.run("dd", "if=/dev/urandom", "of=/big", "bs=64k", "count=320", "conv=fsync")
    assert wrote.exit_code != 0
    assert "I/O error" in await guest.sh("dmesg")
    disk = launch.directory / qemu_disk.DISK
    assert (await asyncio.to_thread(disk.stat)).st_size <= bound
    # What its host tells of it is true, and its agent is there.
    assert qemu.driver.disk_bytes(launch) <= bound
    assert (await guest.run("echo", "alive")).stdout == b"alive\n"
    await guest.let_go()
