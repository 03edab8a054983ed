"""How a machine ends: in order, with its disk whole; or in its boot, with the reason."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from hyperfleet.errors import GuestError
from hyperfleet.fleet import console
from hyperfleet.images import cpio
from hyperfleet.vmm.driver import Exit, LaunchSpec
from hyperfleet.vmm.qemu_command import KERNEL_ARGS
from hyperfleet.vmm.qemu_disk import DISK
from support.bench import BOOT_S, Bench, Guest
from support.images import FILES

pytestmark = [pytest.mark.vm, pytest.mark.asyncio(loop_scope="module")]


async def test_power_off_leaves_a_clean_disk(machines: Bench, need: Any, tmp_path: Path) -> None:
    e2fsck, debugfs = need("e2fsck"), need("debugfs")
    launch = machines.launch()
    guest = await machines.start(launch)
    await guest.configure("web")
    # Still writing, one of them deaf to TERM, and a file that is open though it has no name.
    await guest.sh("(trap '' TERM; while :; do echo x >> /deaf; done) >/dev/null 2>&1 &")
    await guest.sh("(exec 3>/unnamed; rm /unnamed; while :; do echo x >&3; done) >/dev/null 2>&1 &")
    await guest.sh("echo kept > /file; mkdir /mnt/more; mount -t tmpfs none /mnt/more")
    assert await guest.power_off() == Exit(code=0, powered_off=True)

    raw = tmp_path / "disk.raw"
    await _run("qemu-img", "convert", "-O", "raw", str(launch.directory / DISK), str(raw))
    await _run(e2fsck, "-f", "-n", str(raw))
    assert (await _run(debugfs, "-R", "cat /file", str(raw))).endswith("\nkept\n")


async def _run(*command: str) -> str:
    """All that a program of the host writes; it must succeed."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    words = (await process.communicate())[0].decode()
    assert process.returncode == 0, words
    return words


async def test_a_program_may_power_the_machine_off(machines: Bench) -> None:
    guest = await machines.start(machines.launch())
    await guest.sh("(setsid poweroff &)")
    async with asyncio.timeout(BOOT_S):
        assert await guest.process.wait() == Exit(code=0, powered_off=True)
    await guest.let_go()


def _not_ext4(folder: Path) -> dict[str, object]:
    disk = folder / "not-ext4"
    with disk.open("wb") as file:
        file.truncate(8 << 20)
    return {"base_disk": disk}


def _no_disk(folder: Path) -> dict[str, object]:
    return {"kernel_args": f"{KERNEL_ARGS} hyperfleet.root=/dev/vdz"}


def _no_file_system(folder: Path) -> dict[str, object]:
    return {"kernel_args": f"{KERNEL_ARGS} hyperfleet.rootfstype=nofs"}


def _missing_module(folder: Path) -> dict[str, object]:
    """Its order names a module that it does not hold."""
    path = folder / "missing-module.cpio"
    archive = (FILES / "initramfs.cpio").read_bytes()
    # A later archive's files take the place of an earlier one's.
    order = cpio.archive([cpio.folder("modules"), cpio.file("modules/order", b"no_such.ko\n")])
    path.write_bytes(archive + order)
    return {"initramfs": path}


def _bad_module(folder: Path) -> dict[str, object]:
    path = folder / "bad-module.cpio"
    archive = (FILES / "initramfs.cpio").read_bytes()
    module = cpio.file("modules/virtio.ko", b"\x7fELF" + bytes(4096))
    path.write_bytes(archive + cpio.archive([cpio.folder("modules"), module]))
    return {"initramfs": path}


def _corrupt_initramfs(folder: Path) -> dict[str, object]:
    path = folder / "corrupt.cpio"
    archive = (FILES / "initramfs.cpio").read_bytes()
    path.write_bytes(b"\x55" * 4096 + archive[4096:])
    return {"initramfs": path}


def _cut_initramfs(folder: Path) -> dict[str, object]:
    """Cut within the agent's own file."""
    path = folder / "cut.cpio"
    path.write_bytes((FILES / "initramfs.cpio").read_bytes()[:500_000])
    return {"initramfs": path}


BROKEN: dict[str, tuple[Callable[[Path], dict[str, object]], str]] = {
    "no disk": (_no_disk, "cannot mount the root disk /dev/vdz as ext4: no such device after 10 s"),
    "not ext4": (_not_ext4, "cannot mount the root disk /dev/vda as ext4: Invalid argument"),
    "no file system": (
        _no_file_system,
        "cannot mount the root disk /dev/vda as nofs: No such device",
    ),
    "missing module": (_missing_module, "cannot load module no_such.ko: No such file or directory"),
    "bad module": (_bad_module, "cannot load module virtio.ko: Exec format error"),
    "corrupt initramfs": (_corrupt_initramfs, "Initramfs unpacking failed"),
    "cut initramfs": (_cut_initramfs, "Failed to execute /init"),
}
# Of these the agent tells its host, and waits; the others end by themselves.
REFUSED = {"no disk", "not ext4", "no file system"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def broken(
    machines: Bench, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[dict[str, asyncio.Task[tuple[Exit, str]]]]:
    """Machines that shall fail, each under way: most of their time is waiting."""
    folder = tmp_path_factory.mktemp("broken")
    two_at_once = asyncio.Semaphore(2)

    async def boot(name: str, launch: LaunchSpec) -> tuple[Exit, str]:
        async with two_at_once:
            process = await machines.driver.start(launch)
            # Its agent, if it comes so far, says that there is no disk to go on with.
            with pytest.raises(GuestError):
                await Guest.new(process)
            if name in REFUSED:
                await process.kill()
            async with asyncio.timeout(BOOT_S):
                ended = await process.wait()
        return ended, console.reason(machines.driver.console(launch))

    tasks = {
        name: asyncio.create_task(boot(name, machines.launch(**changes(folder))))
        for name, (changes, _) in BROKEN.items()
    }
    yield tasks
    await asyncio.gather(*tasks.values(), return_exceptions=True)


@pytest.mark.parametrize("name", BROKEN)
async def test_a_boot_that_fails_ends_with_its_reason(
    broken: dict[str, asyncio.Task[tuple[Exit, str]]], name: str
) -> None:
    ended, reason = await broken[name]
    assert (ended.code, ended.powered_off) == (None if name in REFUSED else 0, False)
    assert BROKEN[name][1] in reason
