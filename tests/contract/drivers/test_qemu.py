"""What QEMU alone has: disks on a base, processes that outlive the control plane."""

from __future__ import annotations

import asyncio
import shutil
import signal
import sys
from pathlib import Path

import msgspec
import pytest

from hyperfleet.errors import CapacityError, ValidationError
from hyperfleet.vmm.driver import Exit
from support.bench import Bench, Guest

pytestmark = pytest.mark.vm

# A control plane that starts the machine given as JSON, says so, and waits to be killed.
CONTROL_PLANE = """
import asyncio, sys
import msgspec
from hyperfleet.network.user import UserNetwork
from hyperfleet.vmm.driver import LaunchSpec
from hyperfleet.vmm.qemu import QemuDriver

async def main():
    launch = msgspec.json.decode(
        sys.argv[1], type=LaunchSpec, dec_hook=lambda kind, value: kind(value)
    )
    process = await QemuDriver(network=UserNetwork(), kvm=False).start(launch)
    print(process.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_a_machine_outlives_a_killed_control_plane(qemu: Bench) -> None:
    launch = qemu.launch()
    control_plane = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", CONTROL_PLANE, msgspec.json.encode(launch, enc_hook=str)),
        stdout=asyncio.subprocess.PIPE,
    )
    assert control_plane.stdout is not None
    pid = int(await control_plane.stdout.readline())
    control_plane.send_signal(signal.SIGKILL)
    await control_plane.wait()
    process = await qemu.driver.adopt(launch)
    assert process is not None
    assert process.pid == pid
    guest = await Guest.of(process)
    # Not our child, so its status is not known; that it powered off, QEMU itself has said.
    assert await guest.power_off() == Exit(powered_off=True)


async def test_more_memory_than_is_free_is_refused(qemu: Bench) -> None:
    launch = qemu.launch(mem_size_mib=2**30)
    with pytest.raises(CapacityError, match="memory: 1073741824 MiB are needed"):
        await qemu.driver.start(launch)
    assert not launch.directory.exists()


async def test_another_homes_machine_of_that_id_is_left_alone(qemu: Bench) -> None:
    launch = qemu.launch()
    guest = await qemu.start(launch)
    copied = msgspec.structs.replace(launch, directory=launch.directory.with_name("copy"))
    shutil.copytree(launch.directory, copied.directory, ignore=shutil.ignore_patterns("*.sock"))
    assert await qemu.driver.adopt(copied) is None
    await qemu.driver.remove(copied)
    await guest.agent.ping(5)
    await guest.let_go()


async def test_a_base_that_was_written_to_is_refused(qemu: Bench, tmp_path: Path) -> None:
    base = tmp_path / "base.ext4"
    shutil.copy(qemu.launch().base_disk, base)
    launch = qemu.launch(base_disk=base)
    guest = await qemu.start(launch)
    await guest.run("sh", "-c", "echo kept > /file")
    await guest.power_off()
    # Built anew under its name: the machine stays on the one it began with.
    base.rename(tmp_path / "old.ext4")
    shutil.copy(launch.base_disk.with_name("old.ext4"), base)
    guest = await qemu.start(launch)
    assert (await guest.run("cat", "/file")).stdout == b"kept\n"
    await guest.power_off()
    with (tmp_path / "old.ext4").open("r+b") as old:
        old.write(b"changed")
    with pytest.raises(ValidationError, match=r"rootfs_path: .* was written to"):
        await qemu.driver.start(launch)


async def test_what_is_missing_is_named(qemu: Bench, tmp_path: Path) -> None:
    launch = qemu.launch(kernel=tmp_path / "nothing")
    with pytest.raises(ValidationError, match="kernel_image_path: there is no file"):
        await qemu.driver.start(launch)
