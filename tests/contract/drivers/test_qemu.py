"""What QEMU alone has: disks on a base, processes that outlive the control plane."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import shutil
import signal
import sys
from pathlib import Path

import msgspec
import pytest
from qemu.qmp import QMPClient

from hyperfleet import binaries
from hyperfleet.errors import CapacityError, GuestError, ValidationError
from hyperfleet.fleet import console
from hyperfleet.guest.values import Mount
from hyperfleet.machine import Restart
from hyperfleet.vmm import confinement, qemu_disk, qemu_process
from hyperfleet.vmm.driver import DataDisk, Exit
from support.bench import BOOT_S, Bench, Guest
from support.need import mounts
from support.small_disk import grow

pytestmark = pytest.mark.vm

# A control plane that starts the machine given as JSON, says so, and waits to be killed.
CONTROL_PLANE = """
import asyncio, sys
import msgspec
from hyperfleet import binaries
from hyperfleet.network.interface import Networks
from hyperfleet.network.user import UserNetwork
from hyperfleet.vmm.driver import LaunchSpec
from hyperfleet.vmm.qemu import QemuDriver

async def main():
    launch = msgspec.json.decode(
        sys.argv[1], type=LaunchSpec, dec_hook=lambda kind, value: kind(value)
    )
    driver = QemuDriver(
        networks=Networks(UserNetwork()), kvm=False, confine=binaries.confine
    )
    process = await driver.start(launch)
    print(process.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_servers_on_any_processor_are_news(qemu: Bench) -> None:
    guest = await qemu.start(qemu.launch(vcpu_count=2))
    await guest.configure("web")
    seen = (await guest.agent.watch(0)).number
    for mask in (1, 2):
        await guest.sh(f"taskset {mask} httpd -p 800{mask} -h /")
        seen = (await asyncio.wait_for(guest.agent.watch(seen), BOOT_S)).number
        assert 8000 + mask in {one.port for one in await guest.agent.listeners()}
    await guest.let_go()


async def test_what_a_command_leaves_is_ended_before_it_is_started_again(qemu: Bench) -> None:
    guest = await qemu.start(qemu.launch())
    # What it leaves is out of its group.
    script = "setsid sleep 1000 & echo $! >> /run/left; exit 1"
    await guest.agent.supervise(("sh", "-c", script), {}, None, Restart.ON_FAILURE)
    async with asyncio.timeout(BOOT_S):
        news = await guest.agent.watch(0)
        while news.command is None or news.command.restarts == 0:
            news = await guest.agent.watch(news.number)
    first = (await guest.sh("head -n 1 /run/left")).strip()
    assert await guest.sh(f"kill -0 {first} 2>/dev/null || echo gone") == "gone\n"
    await guest.let_go()


async def test_a_command_that_floods_the_console_holds_nobody_up(qemu: Bench) -> None:
    launch = qemu.launch()
    guest = await qemu.start(launch)
    await guest.agent.supervise(("yes", "flood"), {}, None, Restart.NEVER)
    async with asyncio.timeout(BOOT_S):
        async for piece in console.follow(qemu.driver.console(launch), None, gone=lambda: False):
            if b"flood" in piece:
                break
    for _ in range(20):
        await guest.agent.ping(5)
    assert await guest.sh("echo served") == "served\n"
    assert (await guest.power_off()).powered_off


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


@mounts
async def test_a_full_disk_of_the_hosts_holds_a_guest_up_and_no_more(
    small: Path, qemu: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the guest writes meanwhile is written when there is room, without an error in it.

    If it is paused meanwhile, it stays so.
    """
    launch = qemu.launch(directory=small / "machine")
    guest = await qemu.start(launch)
    heard: asyncio.Queue[str | None] = asyncio.Queue()
    guest.process.when_stalled(heard.put_nowait)
    fills = "dd if=/dev/urandom of=/{0} bs=64k count=320 && sync && md5sum < /{0}"
    async with asyncio.timeout(60):
        writing = asyncio.create_task(guest.run("sh", "-c", fills.format("big")))
        assert "no room on the host's disk" in (await heard.get() or "")
        # The next control plane hears of it as well.
        guest.process.release()
        monkeypatch.setattr(qemu_process, "_DISK_RETRY_S", 0.5)
        monkeypatch.setattr(qemu_process, "_DISK_TRIED_S", 2.0)
        adopted = await qemu.driver.adopt(launch)
        assert adopted is not None
        guest.process = adopted
        guest.process.when_stalled(heard.put_nowait)
        assert heard.get_nowait() is not None
        # Tried in vain, it is not said to go on.
        await _tried(monkeypatch)
        assert heard.empty()
        assert not writing.done()
        grow(small, 32)
        wrote = await writing
        assert await heard.get() is None
    assert wrote.exit_code == 0
    await guest.run("sh", "-c", "echo 3 > /proc/sys/vm/drop_caches")
    assert (await guest.run("sh", "-c", "md5sum < /big")).stdout == wrote.stdout
    async with asyncio.timeout(60):
        writing = asyncio.create_task(guest.run("sh", "-c", fills.format("more")))
        assert await heard.get() is not None
        await guest.process.pause()
        grow(small, 64)
        await _tried(monkeypatch)
        assert await guest.process.resume(), "it ran"
        assert await heard.get() is None
        assert (await writing).exit_code == 0
    assert heard.empty()
    await guest.let_go()


async def test_disks_are_grown_to_their_size(qemu: Bench, tmp_path: Path) -> None:
    file = tmp_path / "disk"
    await qemu.driver.make_disk(file, 32)
    large = tmp_path / "large"
    await qemu.driver.make_disk(large, 1 << 20)
    # It takes no room for what is not in it: a terabyte takes what it needs to say so.
    assert (large.stat().st_size, large.stat().st_blocks * 512 < 16 << 20) == (1 << 40, True)
    disk = DataDisk(serial="abcdef", file=file, mount_path="/data")
    other = DataDisk(serial="fedcba", file=large, mount_path="/large")
    launch = qemu.launch(disk_size_mib=8192, disks=(disk, other))
    guest = await qemu.start(launch)
    assert 1_000_000 < await _mebibytes(guest, "/large") <= 1 << 20
    await guest.sh("echo small > /large/file; sync")
    assert large.stat().st_blocks * 512 < 32 << 20
    assert 7500 < await _mebibytes(guest, "/") <= 8192
    assert 20 < await _mebibytes(guest, "/data") <= 32
    await guest.sh("head -c 4000000 /dev/urandom > /data/file; md5sum < /data/file > /sum")
    await guest.power_off()
    os.truncate(file, 3 << 30)
    guest = await qemu.start(launch)
    assert (await guest.run("cat", "/large/file")).stdout == b"small\n"
    assert 2900 < await _mebibytes(guest, "/data") <= 3 << 10
    await guest.sh("md5sum < /data/file | cmp - /sum; head -c 40000000 /dev/zero > /data/more")
    await guest.power_off()
    small = qemu.launch(disk_size_mib=8)
    with pytest.raises(ValidationError, match="disk_size_mib must be at least"):
        await qemu.driver.start(small)


async def test_a_disk_that_is_not_there_is_said(qemu: Bench) -> None:
    process = await qemu.driver.start(qemu.launch())
    with pytest.raises(GuestError, match="cannot mount the disk nothing at /data"):
        await Guest.new(process, [Mount(serial="nothing", path="/data")])


async def _mebibytes(guest: Guest, path: str) -> int:
    """The size of a file system."""
    return int((await guest.sh(f"df -m {path} | tail -n 1")).split()[1])


async def _tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Returns when an attempt to have a guest go on has come to an end, or none was made."""
    status, asked, tried = qemu_process._status, 0, asyncio.Event()  # noqa: SLF001

    async def count(client: QMPClient) -> str | None:
        nonlocal asked
        # Once before each attempt.
        asked += 1
        if asked > 1:
            tried.set()
        return await status(client)

    with monkeypatch.context() as patch:
        patch.setattr(qemu_process, "_status", count)
        await tried.wait()


async def test_a_start_on_a_full_disk_says_so(qemu: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    launch = qemu.launch()

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(qemu_disk, "prepare", full)
    with pytest.raises(CapacityError, match=f"{launch.id}: No space left on device"):
        await qemu.driver.start(launch)
    assert await qemu.driver.adopt(launch) is None


async def test_a_process_has_as_little_as_it_needs(qemu: Bench) -> None:
    launch = qemu.launch()
    process = await qemu.driver.start(launch)
    status = await asyncio.to_thread(_facts, f"/proc/{process.pid}/status")
    limits = await asyncio.to_thread(Path(f"/proc/{process.pid}/limits").read_text)
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0 or os.geteuid() == 0
    assert re.search(r"Max core file size +0 ", limits), limits
    assert not re.search(r"Max file size +unlimited", limits)
    score = await asyncio.to_thread(Path(f"/proc/{process.pid}/oom_score_adj").read_text)
    assert int(score) >= 300
    modes = [
        oct(path.stat().st_mode & 0o077)
        for path in (launch.directory / "disk.qcow2", launch.directory / "console.log")
    ]
    assert modes == ["0o0", "0o0"]


def _facts(path: str) -> dict[str, str]:
    return dict(line.split(":\t", 1) for line in Path(path).read_text().splitlines())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives its machines users of their own")
async def test_started_by_root_a_machine_is_a_user_that_can_do_nothing(qemu: Bench) -> None:
    first, second = qemu.launch(), qemu.launch()
    guest = await qemu.start(first)
    other = await qemu.start(second)
    facts = await asyncio.to_thread(_facts, f"/proc/{guest.process.pid}/status")
    user = confinement.user_of(first.id)
    assert user is not None
    assert {*facts["Uid"].split(), *facts["Gid"].split()} == {str(user.uid)}
    assert facts["Groups"].strip() == ""
    assert int(facts["CapPrm"], 16) == int(facts["CapEff"], 16) == 0
    # Its own disk, and nothing else of its own folder, of the other's, of the home's.
    tried = {
        "cat disk.qcow2": True,
        "touch new": False,
        "rm -f qemu.log": False,
        "ls": False,
        "cat qmp.sock qemu.log": False,
        "mv disk.qcow2 other": False,
        f"cat {second.directory}/disk.qcow2": False,
        f"cat {second.directory}/base.raw": False,
        f"ls {first.directory.parent}": False,
    }
    for line, may in tried.items():
        command = f"{line} > /dev/null 2>&1"
        confined = [str(binaries.confine()), "--user", f"{user.uid}:{user.uid}", "--"]
        done = await asyncio.create_subprocess_exec(
            *confined, "sh", "-c", command, cwd=first.directory
        )
        assert (await done.wait() == 0) is may, line
    await other.let_go()
    await guest.run("sh", "-c", "echo kept > /file; sync")
    await guest.power_off()
    guest = await qemu.start(first)
    assert (await guest.run("cat", "/file")).stdout == b"kept\n"
    await guest.power_off()


async def test_a_disk_is_sound_after_its_process_was_killed(qemu: Bench) -> None:
    launch = qemu.launch()
    guest = await qemu.start(launch)
    await guest.run("sh", "-c", "mkdir /kept; echo kept > /kept/file; sync")
    # Names that come and go, and inodes that are used again: what a journal is for.
    churn = "while :; do mkdir /$1; echo $1 > /$1/file; sync; rm -r /$1; done"
    for name in ("a", "b", "c"):
        await guest.run("sh", "-c", f"(set -- {name}; {churn}) > /dev/null 2>&1 &")
    await guest.run("sh", "-c", "for i in 1 2 3 4 5 6 7 8; do sync; done")
    await guest.process.kill()
    guest = await qemu.start(launch)
    found = await guest.run("sh", "-c", "cat /kept/file; ls -laR / > /dev/null; dmesg")
    assert found.stdout.startswith(b"kept\n")
    assert b"recovery complete" in found.stdout
    assert b"EXT4-fs error" not in found.stdout
    await guest.power_off()


async def test_a_console_without_end_is_bounded_where_nobody_looks(qemu: Bench) -> None:
    """RLIMIT_FSIZE, which holds while no control plane is there to cut the console."""
    launch = qemu.launch()
    guest = await qemu.start(launch)
    console = launch.directory / "console.log"
    limits = await asyncio.to_thread(Path(f"/proc/{guest.process.pid}/limits").read_text)
    found = re.search(r"Max file size +(\d+)", limits)
    assert found is not None
    # As if it had written that much: a hole costs nothing.
    await asyncio.to_thread(os.truncate, console, int(found[1]) - 10)
    await guest.run("sh", "-c", "for i in 1 2 3 4 5 6 7 8; do echo much more > /dev/console; done")
    assert console.stat().st_size <= int(found[1])
    assert (await guest.run("echo", "alive")).stdout == b"alive\n"
    await guest.power_off()
