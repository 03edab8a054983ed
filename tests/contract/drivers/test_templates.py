"""Templates of real machines: clones that are nobody else's, and what becomes of bad templates."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from hyperfleet.errors import GuestError, NotFoundError
from hyperfleet.machine import CommandPhase, Restart
from hyperfleet.network.user import UserNetwork
from support.bench import (
    BOOT_S,
    Bench,
    Guest,
    make_template,
    opened,
    qemu_driver,
    templates_in,
)
from support.images import CHECKOUT, FILES
from support.templates import of_benches

pytestmark = pytest.mark.vm

CLONES = 20
AT_ONCE = 4
# What one machine says of itself, a line each. The last is the sequence number of a connection
# that it begins (RFC 9293, 3.4.1), which no program is told, so it is read off loopback.
IDENTITY = r"""
cat /proc/sys/kernel/random/boot_id
cat /etc/machine-id
od -An -tx1 -N16 /dev/urandom | tr -d ' '
cat /proc/sys/kernel/random/uuid
ssh-keygen -q -t ed25519 -N '' -f /etc/key </dev/null && cut -d' ' -f2 /etc/key.pub
cat /sys/class/net/eth0/address
hostname
perl -MSocket -e '
    socket(my $all, 17, SOCK_RAW, unpack("S", pack("n", 3))) or die "no packets: $!";
    socket(my $one, PF_INET, SOCK_STREAM, 0) or die;
    bind($one, pack_sockaddr_in(40000, INADDR_LOOPBACK)) or die;
    connect($one, pack_sockaddr_in(9, INADDR_LOOPBACK));
    while (sysread($all, my $frame, 65536)) {
        my ($from, $to, $sequence) = unpack("x34 n n N", $frame);
        if ($from == 40000 && $to == 9) { print "$sequence\n"; last }
    }'
"""


@contextlib.asynccontextmanager
async def keeping(folder: Path) -> AsyncIterator[Bench]:
    """A bench whose driver keeps templates in the folder's home, and leaves none half-made."""
    home = folder / "home"
    async with opened(qemu_driver(templates_in(home)), folder) as bench:
        yield bench
    assert not list((home / "templates").glob("*.new"))


@pytest.fixture
async def warm(tmp_path: Path) -> AsyncIterator[Bench]:
    """A driver that keeps templates, and has none yet."""
    async with keeping(tmp_path) as bench:
        yield bench


@pytest.fixture
def copied(templates: Path, tmp_path: Path) -> Path:
    """The folder of a home with the template of a bench's machines; the test may spoil it."""
    copy = tmp_path / "home/templates"
    copy.mkdir(parents=True)
    # Most of its memory is nothing, and takes no room.
    subprocess.run(["cp", "-a", "--sparse=always", of_benches(templates), copy], check=True)
    return tmp_path


@pytest.fixture
async def taught(copied: Path) -> AsyncIterator[Bench]:
    """A driver that has it."""
    async with keeping(copied) as bench:
        yield bench


async def introduced(bench: Bench, number: int, **changes: object) -> Guest:
    launch = bench.launch(name=f"clone-{number}", **changes)
    process = await bench.driver.start(launch)
    assert process.beginning.template is not None
    guest = await Guest.of(process)
    cards = UserNetwork().introduce(launch.network)
    await guest.agent.configure(launch.name, cards, BOOT_S)
    assert (await guest.sh("cat /sys/class/net/eth0/address")).strip() == launch.network.guest_mac
    return guest


async def test_clones_tell_of_their_own_servers_and_commands(taught: Bench) -> None:
    for number in range(2):
        guest = await introduced(taught, number)
        await guest.agent.supervise(("sh", "-c", f"exit {number}"), {}, None, Restart.NEVER)
        async with asyncio.timeout(BOOT_S):
            news = await guest.agent.watch(0)
            while news.command is None or news.command.state is not CommandPhase.EXITED:
                news = await guest.agent.watch(news.number)
            assert news.command.exit_code == number
            coming = asyncio.create_task(guest.agent.watch(news.number))
            await guest.sh("httpd -p 80 -h /")
            assert (await coming).number > news.number
        await guest.let_go()


async def test_twenty_clones_have_nothing_of_each_others(
    taught: Bench, need: object, tmp_path: Path
) -> None:
    program = Path(need("ssh-keygen"))  # type: ignore[operator]
    ssh_keygen = await asyncio.to_thread(program.read_bytes)
    disk = FILES / "debian-rootfs.ext4"
    turns = asyncio.Semaphore(AT_ONCE)

    async def identity(number: int) -> list[str]:
        async with turns:
            guest = await introduced(taught, number, base_disk=disk)
            copy = "cat > /usr/bin/ssh-keygen && chmod 755 /usr/bin/ssh-keygen"
            await guest.sh(copy, stdin=ssh_keygen)
            said = (await guest.sh(IDENTITY, timeout=BOOT_S)).split("\n")
            await guest.agent.close()
            await guest.process.kill()
            return said[:-1]

    said = await asyncio.gather(*map(identity, range(CLONES)))
    kinds = [*zip(*said, strict=True)]
    assert len(kinds) == 8
    for kind in kinds:
        assert len(set(kind)) == CLONES, kind
    assert kinds[6] == tuple(f"clone-{number}" for number in range(CLONES))
    # By one secret of the kernel's they would differ by their clocks alone, which is little.
    assert not _are_near([int(number) for number in kinds[7]])
    (template,) = taught.driver.templates()
    assert (template.vcpu_count, template.mem_size_mib) == (1, 128)
    assert 20 << 20 < template.size_bytes < 128 << 20


def _are_near(numbers: list[int]) -> bool:
    """Whether all lie within a quarter of the circle of 2^32."""
    places = sorted(numbers)
    gaps = [after - before for before, after in itertools.pairwise(places)]
    gaps.append(places[0] + (1 << 32) - places[-1])
    return max(gaps) > 3 << 30


def test_near_numbers_are_told() -> None:
    assert _are_near([5, (1 << 32) - 7, 1 << 20])
    assert not _are_near([0, 1 << 30, 1 << 31])


async def test_a_disk_lives_through_boots_and_clones(taught: Bench) -> None:
    launch = taught.launch()
    words = []
    for number in range(3):
        process = await taught.driver.start(launch, anew=number == 1)
        assert (process.beginning.template is None) == (number == 1)
        guest = await Guest.new(process)
        await guest.sh(f"echo {number} >> /words")
        words.append(await guest.sh("cat /words"))
        assert (await guest.power_off()).powered_off
    assert words == ["0\n", "0\n1\n", "0\n1\n2\n"]


async def test_a_template_outlives_its_server_and_not_what_it_was_made_of(
    warm: Bench, tmp_path: Path
) -> None:
    initramfs = tmp_path / "initramfs.cpio"
    shutil.copy(FILES / "initramfs.cpio", initramfs)
    await warm.teach(initramfs=initramfs)
    (template,) = warm.driver.templates()
    again = Bench(qemu_driver(templates_in(tmp_path / "home")), tmp_path, FILES)
    await again.driver.open()
    assert again.driver.templates() == [template]
    guest = await introduced(again, 1, initramfs=initramfs)
    assert guest.process.beginning.template == template.id
    await guest.process.kill()
    # A rebuilt one, even of the same bytes, is another.
    with initramfs.open("ab") as file:
        file.write(bytes(512))
    process = await again.driver.start(again.launch(initramfs=initramfs))
    assert process.beginning.template is None
    await again.close()
    await again.driver.close()
    last = templates_in(tmp_path / "home")
    await last.open()
    assert last.kept() == []


@pytest.mark.parametrize("name", ["memory", "state", "about.json"])
async def test_a_template_that_is_cut_short_is_none(
    taught: Bench, tmp_path: Path, name: str
) -> None:
    (template,) = taught.driver.templates()
    os.truncate(tmp_path / "home/templates" / template.id / name, 4096 if name == "memory" else 0)
    again = Bench(qemu_driver(templates_in(tmp_path / "home")), tmp_path, FILES)
    process = await again.driver.start(again.launch())
    assert process.beginning.template is None
    await again.close()
    assert again.driver.templates() == []


async def test_a_clone_that_qemu_will_not_take_boots(taught: Bench, tmp_path: Path) -> None:
    (template,) = taught.driver.templates()
    state = tmp_path / "home/templates" / template.id / "state"
    state.write_bytes(b"no state of a machine")
    again = Bench(qemu_driver(templates_in(tmp_path / "home")), tmp_path, FILES)
    process = await again.driver.start(again.launch())
    assert process.beginning.template is None
    assert process.beginning.note is not None
    assert template.id in process.beginning.note
    await Guest.new(process)
    await again.close()
    assert again.driver.templates() == []
    await again.driver.close()


async def test_there_are_only_so_many_and_each_can_be_removed(tmp_path: Path) -> None:
    driver = qemu_driver(templates_in(tmp_path / "home", most=2))
    bench = Bench(driver, tmp_path, FILES)
    for mib in (96, 112, 128):
        await bench.teach(mem_size_mib=mib)
    assert [one.mem_size_mib for one in driver.templates()] == [128, 112]
    # The one that was not used for longest makes room.
    await (await driver.start(bench.launch(mem_size_mib=112))).kill()
    assert [one.mem_size_mib for one in driver.templates()] == [112, 128]
    await driver.remove_template(driver.templates()[0].id)
    assert [one.mem_size_mib for one in driver.templates()] == [128]
    with pytest.raises(NotFoundError, match=r"there is no template '\.\./x'"):
        await driver.remove_template("../x")
    await bench.close()
    await driver.close()
    none = templates_in(tmp_path / "home", most=0)
    await none.open()
    assert none.kept() == []


async def test_no_template_is_made_of_what_does_not_boot(warm: Bench) -> None:
    launch = warm.launch(kernel_args="panic=-1 hyperfleet.root=/dev/vda init=/none rdinit=/none")
    await (await warm.driver.start(launch)).kill()
    with pytest.raises(GuestError, match="QEMU ended"):
        await make_template(warm.driver, launch)
    assert warm.driver.templates() == []


async def test_a_template_is_made_like_a_machine_that_is_gone(warm: Bench) -> None:
    launch = warm.launch()
    await (await warm.driver.start(launch)).kill()
    recipe = warm.driver.recipe(launch)
    await warm.driver.remove(launch)
    assert recipe is not None
    await recipe.make()
    assert [one.mem_size_mib for one in warm.driver.templates()] == [launch.mem_size_mib]
    # It is told once: who has booted for want of a template, and may be one.
    assert warm.driver.recipe(launch) is None


async def test_a_clone_can_write_to_no_other_by_what_they_share(taught: Bench) -> None:
    guest = await introduced(taught, 1)
    shared = _descriptors(guest.process.pid, "memfd:template")
    assert shared
    for path in shared:
        descriptor = os.open(path, os.O_RDWR)
        with pytest.raises(PermissionError):
            os.pwrite(descriptor, b"x", 0)
        os.close(descriptor)
    await guest.process.kill()


# A control plane that makes a template of the machine given as JSON and is killed at a point.
MAKER = """
import asyncio, sys
from pathlib import Path
import msgspec
from hyperfleet.failpoints import Point, arm
from hyperfleet.vmm.driver import LaunchSpec
sys.path.insert(0, sys.argv[4])
from support.bench import make_template, qemu_driver, templates_in

async def main():
    launch = msgspec.json.decode(
        sys.argv[1], type=LaunchSpec, dec_hook=lambda kind, value: kind(value)
    )
    driver = qemu_driver(templates_in(Path(sys.argv[2])))
    process = await driver.start(launch)
    if sys.argv[3] != "spawn.done":
        await process.kill()
        arm(Point(sys.argv[3]))
        await make_template(driver, launch)
    else:
        await process.kill()
        await make_template(driver, launch)
        arm(Point(sys.argv[3]))
        await driver.start(launch)

asyncio.run(main())
"""


@pytest.mark.parametrize("point", ["template.spawned", "template.written", "spawn.done"])
async def test_killed_as_it_makes_or_clones_one_it_leaves_nothing(
    tmp_path: Path, point: str
) -> None:
    driver = qemu_driver(templates_in(tmp_path / "home"))
    bench = Bench(driver, tmp_path, FILES)
    launch = bench.launch()
    command = (MAKER, msgspec.json.encode(launch, enc_hook=str), tmp_path / "home", point)
    maker = await asyncio.create_subprocess_exec(sys.executable, "-c", *command, CHECKOUT / "tests")
    assert await maker.wait() == -signal.SIGKILL
    await driver.open()
    assert not list((tmp_path / "home/templates").glob("*.new"))
    # A clone that was never told whose state it takes over is no machine.
    assert await driver.adopt(launch) is None
    assert len(driver.templates()) == (1 if point == "spawn.done" else 0)
    assert _running_in(tmp_path) == []
    guest = await Guest.new(await driver.start(launch))
    assert (await guest.power_off()).powered_off
    await bench.close()
    await driver.close()


def _descriptors(pid: int | None, word: str) -> list[Path]:
    """Those of a process whose file's name holds the word."""
    folder = Path(f"/proc/{pid}/fd")
    return [path for path in folder.iterdir() if word in str(path.readlink())]


def _running_in(folder: Path) -> list[str]:
    """The processes whose working directory lies there."""
    links = Path("/proc").glob("[0-9]*/cwd")
    return [path.parent.name for path in links if _leads_into(path, folder)]


def _leads_into(link: Path, folder: Path) -> bool:
    try:
        return link.readlink().is_relative_to(folder)
    except OSError:
        return False
