"""What QEMU alone has: disks on a base, processes that outlive the control plane."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from hyperfleet.errors import CapacityError, ValidationError
from hyperfleet.vmm import qemu_disk, qemu_process
from hyperfleet.vmm.driver import Exit
from support.bench import Bench, Guest
from support.need import mounts

pytestmark = pytest.mark.vm

# A control plane that starts the machine given as JSON, says so, and waits to be killed.
CONTROL_PLANE = """
import asyncio, sys
import msgspec
from hyperfleet.network.interface import Networks
from hyperfleet.network.user import UserNetwork
from hyperfleet.vmm.driver import LaunchSpec
from hyperfleet.vmm.qemu import QemuDriver

async def main():
    launch = msgspec.json.decode(
        sys.argv[1], type=LaunchSpec, dec_hook=lambda kind, value: kind(value)
    )
    process = await QemuDriver(networks=Networks(UserNetwork()), kvm=False).start(launch)
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


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "hyperfleet-test", str(folder)]
    subprocess.run(command, check=True)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def _make_room(folder: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=64m", str(folder)], check=True)


@mounts
async def test_a_full_disk_of_the_hosts_holds_a_guest_up_and_no_more(
    small: Path, qemu: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the guest writes meanwhile is written when there is room, without an error in it."""
    monkeypatch.setattr(qemu_process, "_DISK_RETRY_S", 0.2)
    launch = qemu.launch(directory=small / "machine")
    guest = await qemu.start(launch)
    waits = _logged(qemu_process.__name__, "no room on the host's disk")
    fills = "dd if=/dev/urandom of=/big bs=64k count=320 && sync && md5sum < /big"
    async with asyncio.timeout(60):
        writing = asyncio.create_task(guest.run("sh", "-c", fills))
        await waits
        assert not writing.done()
        _make_room(small)
        wrote = await writing
    assert wrote.exit_code == 0
    await guest.run("sh", "-c", "echo 3 > /proc/sys/vm/drop_caches")
    assert (await guest.run("sh", "-c", "md5sum < /big")).stdout == wrote.stdout
    await guest.let_go()


def _logged(logger: str, words: str) -> asyncio.Future[None]:
    """Done when a record with these words is logged."""
    loop = asyncio.get_running_loop()
    heard: asyncio.Future[None] = loop.create_future()

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if words in record.getMessage() and not heard.done():
                heard.set_result(None)

    ear = Ear()
    logging.getLogger(logger).addHandler(ear)
    heard.add_done_callback(lambda _: logging.getLogger(logger).removeHandler(ear))
    return heard


async def test_a_start_on_a_full_disk_says_so(qemu: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    launch = qemu.launch()

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(qemu_disk, "prepare", full)
    with pytest.raises(CapacityError, match=f"{launch.id}: No space left on device"):
        await qemu.driver.start(launch)
    assert await qemu.driver.adopt(launch) is None
