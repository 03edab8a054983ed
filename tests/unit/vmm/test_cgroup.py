"""Machines' cgroups: made with their limits, found again, removed; never in the way of a start."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from hyperfleet.vmm import cgroup
from hyperfleet.vmm.cgroup import Cgroups, OutOfMemory, Shares, limits_of
from hyperfleet.vmm.cgroup_base import Base, Sight
from support.kernfs import ROOT, Kernfs

ALL = ("cpu", "memory", "io", "pids")
HOME = Path("/var/lib/hyperfleet")
ID = "abc123def456"
SERVER, SHELL, QEMU = 1, 2, 3


@pytest.fixture
def tree() -> Kernfs:
    """A service with all controllers, in which a shell has started the server."""
    tree = Kernfs(ALL)
    tree.add("/service", marked=True).processes.update((SERVER, SHELL))
    return tree


def of(tree: Kernfs, home: Path = HOME, **more: object) -> Cgroups:
    sight = Sight(Base(ROOT / "service"), ALL, ())
    made = Cgroups(home, tree=tree, look=lambda: sight, **more)  # type: ignore[arg-type]
    made.open()
    return made


def made(cgroups: Cgroups, machine_id: str = ID) -> Path:
    group = cgroups.make(machine_id, vcpus=2, mem_mib=128)
    assert group is not None
    return group


def test_the_server_moves_aside_and_controllers_are_handed_down(tree: Kernfs) -> None:
    cgroups = of(tree)
    assert tree.where(SERVER) == tree.where(SHELL) == ROOT / "service" / "control"
    assert cgroups.controllers == {*ALL}
    group = made(cgroups)
    assert tree.has(group) == {*ALL}
    assert tree.all[group].texts == {
        "memory.max": str((128 + 256) << 20),
        "memory.swap.max": str((128 + 256) << 20),
        "memory.oom.group": "1",
        "cpu.max": "300000 100000",
        "cpu.weight": "200",
        "pids.max": "258",
    }


def test_a_second_server_finds_all_in_place(tree: Kernfs) -> None:
    group = made(of(tree))
    tree.all[group].processes.add(QEMU)
    again = of(tree)
    assert tree.where(QEMU) == group
    again.remove(ID)
    assert group not in tree.all


def test_reading_and_writing_is_limited_only_if_asked() -> None:
    rows = limits_of(Shares(io="rbps=1", disk="8:0"), vcpus=1, mem_mib=1)
    assert ("io.max", "8:0 rbps=1") in rows
    for shares in (Shares(), Shares(io="rbps=1"), Shares(disk="8:0")):
        files = [file for file, _ in limits_of(shares, vcpus=1, mem_mib=1)]
        assert "io.max" not in files


def test_weights_are_what_the_kernel_takes() -> None:
    def weight(vcpus: int, weight: int | None = None) -> str:
        rows = limits_of(Shares(), vcpus=vcpus, mem_mib=1, weight=weight)
        return next(text for file, text in rows if file == "cpu.weight")

    assert weight(1) == "100"
    assert weight(200) == "10000"
    assert weight(4, 10) == "10"


def test_roots_own_tree_gets_its_controllers_from_the_root() -> None:
    tree = Kernfs(ALL)
    tree.all[ROOT].processes.add(SERVER)
    sight = Sight(Base(ROOT / "hyperfleet", above=ROOT), ALL, ())
    cgroups = Cgroups(HOME, tree=tree, look=lambda: sight)
    assert cgroups.open().controllers == ALL
    # The root may have both.
    assert tree.where(SERVER) == ROOT
    assert tree.has(made(cgroups)) == {*ALL}


def test_what_can_be_had_is_had_without_the_rest(
    tree: Kernfs, caplog: pytest.LogCaptureFixture
) -> None:
    tree.all[ROOT].handed_down = {"memory", "pids"}
    tree.unknown.add("memory.swap.max")
    cgroups = of(tree)
    assert cgroups.controllers == {"memory", "pids"}
    assert set(tree.all[made(cgroups)].texts) == {"memory.max", "memory.oom.group", "pids.max"}
    assert caplog.text == ""


def test_none_at_all_is_no_reason_not_to_start(
    tree: Kernfs, caplog: pytest.LogCaptureFixture
) -> None:
    nothing = Cgroups(HOME, tree=tree, look=lambda: Sight(None, (), ALL, "no cgroup2", "boot"))
    assert nothing.open().base is None
    assert "no cgroup2" in caplog.text
    assert nothing.make(ID, vcpus=1, mem_mib=1) is None
    assert nothing.out_of_memory(ID) is None
    nothing.remove(ID)


def test_a_tree_that_refuses_is_no_reason_not_to_start(
    tree: Kernfs, caplog: pytest.LogCaptureFixture
) -> None:
    cgroups = of(tree)
    tree.read_only = True
    assert cgroups.make(ID, vcpus=1, mem_mib=1) is None
    assert cgroups.make("other", vcpus=1, mem_mib=1) is None
    assert "Read-only file system" in caplog.text
    late = Cgroups(Path("/other"), tree=tree, look=lambda: Sight(Base(ROOT / "service"), ALL, ()))
    assert late.open().base is None
    assert late.make(ID, vcpus=1, mem_mib=1) is None


def test_switched_off_no_machine_gets_one_and_those_that_have_are_looked_after(
    tree: Kernfs,
) -> None:
    off = of(tree, wanted=False)
    assert off.make(ID, vcpus=1, mem_mib=1) is None
    # It has not even moved aside.
    assert tree.where(SERVER) == ROOT / "service"
    group = made(of(tree))
    tree.all[group].processes.add(QEMU)
    off = of(tree, wanted=False)
    assert off.make("other", vcpus=1, mem_mib=1) is None
    off.remove(ID)
    assert group not in tree.all


def test_what_is_left_of_an_earlier_process_makes_room(tree: Kernfs) -> None:
    cgroups = of(tree)
    tree.all[made(cgroups)].processes.add(QEMU)
    assert not tree.all[made(cgroups)].processes


def test_a_unit_that_was_started_anew_is_prepared_anew(tree: Kernfs) -> None:
    cgroups = of(tree)
    group = made(cgroups)
    for path in [path for path in tree.all if path.is_relative_to(ROOT / "service")]:
        del tree.all[path]
    tree.add("/service", marked=True).processes.add(SHELL)
    assert made(cgroups) == group
    assert tree.has(group) == {*ALL}


def test_homes_do_not_meet(tree: Kernfs) -> None:
    one, other = of(tree), of(tree, Path("/srv/other"))
    group = made(one)
    assert made(other) != group
    other.remove(ID)
    of(tree, Path("/srv/other"))
    assert group in tree.all


def test_a_server_that_starts_removes_the_empty_ones_alone(tree: Kernfs) -> None:
    cgroups = of(tree)
    empty, full = made(cgroups), made(cgroups, "runs")
    tree.all[full].processes.add(QEMU)
    tree.all[full].texts["memory.events"] = "oom 1\noom_kill 1\n"
    later = of(tree)
    assert empty not in tree.all
    assert full in tree.all
    # It has not ended, whatever was killed in it.
    del tree.all[full].texts["memory.events"]
    assert later.out_of_memory("runs") is None


def test_one_that_can_not_be_ended_stays_and_is_told(
    tree: Kernfs, caplog: pytest.LogCaptureFixture
) -> None:
    cgroups = of(tree)
    group = made(cgroups)
    tree.all[group].processes.add(QEMU)
    tree.all[group].stuck = True
    cgroups.remove(ID)
    assert str(group) in caplog.text
    # Nor is it in the way.
    assert cgroups.make(ID, vcpus=1, mem_mib=1) is None
    tree.all[group].stuck = False
    assert cgroups.make(ID, vcpus=1, mem_mib=1) == group


def test_one_that_another_server_has_put_elsewhere_is_found_by_its_process(tree: Kernfs) -> None:
    group = made(of(tree))
    elsewhere = ROOT / "before" / group.parent.name / ID
    tree.add(f"/{elsewhere.relative_to(ROOT)}").processes.add(QEMU)
    cgroups = of(tree, place_of=tree.where)
    cgroups.adopt(ID, QEMU)
    cgroups.remove(ID)
    assert elsewhere not in tree.all
    # The next one is where this server has its own.
    assert made(cgroups) == group


def test_a_process_in_anything_else_says_nothing(tree: Kernfs) -> None:
    tree.all[ROOT / "service"].processes.add(QEMU)
    cgroups = of(tree, place_of=tree.where)
    cgroups.adopt(ID, QEMU)
    cgroups.remove(ID)
    assert tree.where(QEMU) == ROOT / "service" / "control"


@pytest.mark.parametrize(
    ("counts", "want"),
    [
        ("oom 0\noom_kill 0\n", None),
        ("oom 2\noom_kill 0\n", None),
        ("oom 1\noom_kill 3\n", OutOfMemory.OWN),
        ("oom 0\noom_kill 1\n", OutOfMemory.HOST),
    ],
)
def test_why_it_was_killed(tree: Kernfs, counts: str, want: OutOfMemory | None) -> None:
    cgroups = of(tree)
    tree.all[made(cgroups)].texts["memory.events"] = f"low 0\nhigh 0\nmax 7\n{counts}"
    assert cgroups.out_of_memory(ID) is want
    # The next server has removed it, and knows.
    later = of(tree)
    assert later.out_of_memory(ID) is want
    later.remove(ID)
    assert later.out_of_memory(ID) is None


def test_a_limit_for_a_disk_that_is_not_there_is_told(
    tree: Kernfs, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    of(tree, shares=Shares(io="rbps=1", disk="8:0"))
    assert "not in force" not in caplog.text
    of(tree, shares=Shares(io="rbps=1", disk=None))
    assert "HYPERFLEET_CGROUP_IO_MAX is not in force" in caplog.text


def test_without_is_without() -> None:
    assert cgroup.without().open().base is None
