"""Real machines in cgroups of this host's kernel, whichever controllers it has for them."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyperfleet import binaries, failpoints
from hyperfleet.errors import GuestError
from hyperfleet.failpoints import Point
from hyperfleet.network.gate import Gates
from hyperfleet.network.interface import Networks
from hyperfleet.network.user import UserNetwork
from hyperfleet.vmm import template_maker
from hyperfleet.vmm.cgroup import Cgroups, OutOfMemory
from hyperfleet.vmm.cgroup_base import Base, Sight
from hyperfleet.vmm.cgroup_tree import Kernel
from hyperfleet.vmm.driver import Exit
from hyperfleet.vmm.qemu import QemuDriver
from hyperfleet.vmm.shape import shape_of
from support.bench import BOOT_S, Bench, qemu_driver
from support.images import FILES
from support.need import Need

QEMU = "qemu-system-x86_64"

pytestmark = [
    pytest.mark.vm,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may make cgroups anywhere"),
]


class Starved(Kernel):
    """Says that the kernel has killed for want of memory; this host's may not count that."""

    def read(self, file: Path) -> str:
        if file.name == "memory.events":
            return "low 0\nhigh 0\nmax 9\noom 1\noom_kill 3\n"
        return super().read(file)


@pytest.fixture
def bases() -> Iterator[tuple[Path, Path]]:
    """Two cgroups of the test's own, on whichever cgroup2 this host has."""
    mounts = (line.split() for line in Path("/proc/mounts").read_text().splitlines())
    place = next((Path(words[1]) for words in mounts if words[2] == "cgroup2"), None)
    if place is None or not os.access(place, os.W_OK):
        pytest.skip("no cgroup2 is mounted here, or it is read-only")
    groups = (
        place / f"hyperfleet-test-{os.getpid()}-1",
        place / f"hyperfleet-test-{os.getpid()}-2",
    )
    for group in groups:
        group.mkdir()
    yield groups
    for group in groups:
        for inner in [path for path in group.iterdir() if path.is_dir()]:
            # Fails where anything is left in it.
            inner.rmdir()
        group.rmdir()


class Host:
    """Servers of one home, each with its own place for machines' cgroups."""

    def __init__(self, home: Path, need: Need) -> None:
        self.home = home
        # It asks for what real guests need.
        qemu_driver()
        need("passt")

    def cgroups(self, base: Path) -> Cgroups:
        # Without controllers: what is shown here needs none.
        return Cgroups(self.home, tree=Starved(), look=lambda: Sight(Base(base), (), ()))

    async def driver(self, base: Path) -> QemuDriver:
        made = QemuDriver(
            networks=Networks(UserNetwork(Gates(binaries.gate))),
            kvm=False,
            confine=binaries.confine,
            cgroups=self.cgroups(base),
        )
        await made.open()
        return made


def members(group: Path) -> list[str]:
    """What runs there, as the kernel has its names; passt's has its processor's kind in it."""
    pids = (group / "cgroup.procs").read_text().split()
    names = (Path(f"/proc/{pid}/comm").read_text().strip() for pid in pids)
    return sorted(name.partition(".")[0] for name in names)


def populated(group: Path) -> bool:
    """Returns when something runs there; whether that was in time."""
    with (group / "cgroup.events").open() as events:
        news = select.poll()
        news.register(events, select.POLLPRI)
        deadline = time.monotonic() + BOOT_S
        while "populated 1" not in events.read():
            if time.monotonic() > deadline:
                return False
            news.poll(1000)
            events.seek(0)
    return True


async def test_all_of_a_machine_is_in_one_and_ends_with_it(
    tmp_path: Path, bases: tuple[Path, Path], need: Need
) -> None:
    host = Host(tmp_path, need)
    first = await host.driver(bases[0])
    bench = Bench(first, tmp_path, FILES)
    launch = bench.launch(mem_size_mib=96)
    try:
        process = await first.start(launch)
        [tree] = [path for path in bases[0].iterdir() if path.is_dir()]
        group = tree / launch.id
        assert members(group) == ["hyperfleet-gate", "passt", "qemu-system-x86"]
        process.release()

        # The next server has its own elsewhere, and finds where this one is.
        second = await host.driver(bases[1])
        found = await second.adopt(launch)
        assert found is not None
        # Whatever else has come to be in it.
        stray = await asyncio.create_subprocess_exec(
            *(str(binaries.confine()), "--cgroup", str(group), "--"),
            *("sh", "-c", "echo in; exec sleep 1000"),
            stdout=asyncio.subprocess.PIPE,
        )
        assert stray.stdout is not None
        assert await stray.stdout.readline() == b"in\n"
        await found.kill()
        assert await found.wait() == Exit(signal=signal.SIGKILL, out_of_memory=OutOfMemory.OWN)
        # What a server would know of it that finds it dead.
        assert second.last_exit(launch).out_of_memory is OutOfMemory.OWN
        await second.sweep(launch)
        assert await stray.wait() == -signal.SIGKILL
        assert not group.exists()
    finally:
        await bench.close()


async def test_a_template_is_made_in_one_too(
    tmp_path: Path, bases: tuple[Path, Path], need: Need
) -> None:
    host = Host(tmp_path, need)
    cgroups = host.cgroups(bases[0])
    cgroups.open()
    seen: list[tuple[str, bool]] = []

    def look() -> None:
        [group] = [path for path in bases[0].glob("*/*") if path.is_dir()]
        seen.append((group.name, populated(group)))

    failpoints.arm(Point.TEMPLATE_SPAWNED, look)
    shape = shape_of(Bench(qemu_driver(), tmp_path, FILES).launch(), [], qemu=QEMU, kvm=False)
    try:
        # It has no time: what there is then goes with it.
        with pytest.raises(GuestError, match="not ready"):
            await template_maker.make(
                shape,
                "template-one",
                tmp_path / "one.new",
                confine=binaries.confine,
                cgroups=cgroups,
                limit=1.5,
            )
    finally:
        failpoints.arm(None)
    assert seen == [("template-one", True)]
    assert [path for path in bases[0].glob("*/*") if path.is_dir()] == []


async def test_what_a_killed_server_has_made_and_not_used_is_removed(
    tmp_path: Path, bases: tuple[Path, Path], need: Need
) -> None:
    host = Host(tmp_path, need)
    killed = host.cgroups(bases[0])
    killed.open()
    group = killed.make("abc123def456", vcpus=1, mem_mib=128)
    assert group is not None
    assert group.is_dir()
    host.cgroups(bases[0]).open()
    assert not group.exists()
