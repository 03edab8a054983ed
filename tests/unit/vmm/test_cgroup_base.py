"""Where machines' cgroups may be made: what is another's stays so."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyperfleet.vmm.cgroup_base import Base, Sight, find, look
from hyperfleet.vmm.cgroup_tree import disk_of
from support.kernfs import ROOT, Kernfs

ALL = ("cpu", "memory", "io", "pids")
USER = 1000
MOUNTS = (
    "24 1 0:22 / /proc rw - proc proc rw\n"
    "31 24 0:27 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
)
V1 = "31 24 0:27 / /sys/fs/cgroup/cpu rw shared:4 - cgroup cgroup rw,cpu\n"
SERVICE = "/system.slice/hyperfleet.service"
MACHINES = "/system.slice/hyperfleet-machines.service"
APP = "/user.slice/user-1000.slice/user@1000.service/app.slice"


def seen(tree: Kernfs, own: str, mounts: str = MOUNTS) -> Sight:
    return find(tree, f"1:name=systemd:/elsewhere\n0::{own}\n", mounts, tree.user)


def place(path: str) -> Path:
    return ROOT / path.removeprefix("/")


def test_root_that_has_been_given_nothing_has_a_tree_beside_the_service_managers() -> None:
    tree = Kernfs(ALL)
    tree.add("/user.slice/user-0.slice/session-1.scope")
    sight = seen(tree, "/user.slice/user-0.slice/session-1.scope")
    assert sight == Sight(Base(ROOT / "hyperfleet", above=ROOT), ALL, ())
    assert ROOT / "hyperfleet" not in tree.all


def test_the_unit_for_machines_comes_first() -> None:
    tree = Kernfs(ALL)
    tree.add(SERVICE, marked=True)
    tree.add(MACHINES, marked=True)
    assert seen(tree, SERVICE).base == Base(place(MACHINES))


def test_a_unit_of_that_name_that_is_not_delegated_is_left_alone() -> None:
    tree = Kernfs(ALL)
    tree.add(SERVICE, marked=True)
    tree.add(MACHINES)
    assert seen(tree, SERVICE).base == Base(place(SERVICE))


def test_a_server_that_an_earlier_one_has_put_aside_finds_its_tree_again() -> None:
    tree = Kernfs(ALL)
    tree.add(f"{SERVICE}/control")
    tree.all[place(SERVICE)].marked = True
    assert seen(tree, f"{SERVICE}/control").base == Base(place(SERVICE))


def test_an_ordinary_user_has_what_is_delegated_with_fewer_controllers() -> None:
    tree = Kernfs(ALL, user=USER)
    scope = f"{APP}/run-1.scope"
    tree.add(scope, USER, marked=True)
    tree.all[place(APP)].handed_down = {"memory", "pids"}
    assert seen(tree, scope) == Sight(Base(place(scope)), ("memory", "pids"), ("cpu", "io"))


def test_a_users_unit_for_machines_is_reached_over_what_is_the_users() -> None:
    tree = Kernfs(ALL, user=USER)
    tree.add(f"{APP}/hyperfleet.service", USER)
    tree.add(f"{APP}/hyperfleet-machines.service", USER, marked=True)
    tree.all[place(APP)].owner = USER
    base = seen(tree, f"{APP}/hyperfleet.service").base
    assert base == Base(place(f"{APP}/hyperfleet-machines.service"))
    # Processes can't be moved past what is somebody else's.
    tree.all[place(APP)].owner = 0
    assert seen(tree, f"{APP}/hyperfleet.service").base != base


def test_what_a_users_service_manager_has_is_not_the_servers() -> None:
    tree = Kernfs(ALL, user=USER)
    tree.add(f"{APP}/terminal.scope", USER)
    tree.all[place(APP)].owner = USER
    sight = seen(tree, f"{APP}/terminal.scope")
    assert sight.base is None
    assert "Delegate=yes" in (sight.mend or "")


def test_what_was_given_to_a_user_by_hand_is_the_users() -> None:
    tree = Kernfs(ALL, user=USER)
    tree.add("/given", USER)
    assert seen(tree, "/given").base == Base(ROOT / "given")


def test_in_a_container_its_root_is_the_servers() -> None:
    tree = Kernfs(ALL)
    tree.is_there = lambda path: path == ROOT / "cgroup.type"  # type: ignore[method-assign]
    assert seen(tree, "/").base == Base(ROOT)


@pytest.mark.parametrize(
    ("mounts", "own", "controllers", "why"),
    [
        (V1, "/", ALL, "no cgroup2 is mounted"),
        (MOUNTS, "/", ("hugetlb",), "has no controllers"),
        (MOUNTS, "/../..", ALL, "is not to be seen"),
    ],
)
def test_where_there_can_be_none_it_says_why(
    mounts: str, own: str, controllers: tuple[str, ...], why: str
) -> None:
    sight = seen(Kernfs(controllers), own, mounts)
    assert sight.base is None
    assert sight.missing == ALL
    assert why in (sight.why or "")
    assert sight.mend


def test_a_tree_that_is_read_only_is_none() -> None:
    tree = Kernfs(ALL)
    tree.read_only = True
    tree.add("/one", marked=True)
    assert seen(tree, "/one").base is None


def test_threads_are_no_processes() -> None:
    tree = Kernfs(ALL, user=USER)
    tree.add("/given", USER, marked=True)
    tree.read = lambda file: "threaded" if file.name == "cgroup.type" else " ".join(ALL)  # type: ignore[method-assign]
    assert seen(tree, "/given").base is None


def test_this_host_can_be_looked_at() -> None:
    sight = look()
    assert (sight.base is None) == (sight.why is not None)
    assert {*sight.controllers, *sight.missing} == {*ALL}


def test_no_disk_is_none() -> None:
    assert disk_of(Path("/proc")) is None


def test_a_partition_stands_for_its_disk(tmp_path: Path) -> None:
    import os  # noqa: PLC0415

    device = tmp_path.stat().st_dev
    if os.major(device) == 0:
        pytest.skip("temporary files lie on no disk of their own here")
    disk = tmp_path / "sys" / "devices" / "sda"
    (disk / "sda1").mkdir(parents=True)
    (disk / "dev").write_text("8:0\n")
    (disk / "sda1" / "dev").write_text("8:1\n")
    by_number = tmp_path / "sys" / "dev" / "block"
    by_number.mkdir(parents=True)
    entry = by_number / f"{os.major(device)}:{os.minor(device)}"
    entry.symlink_to(disk / "sda1")
    assert disk_of(tmp_path, tmp_path / "sys") == "8:1"
    (disk / "sda1" / "partition").write_text("1\n")
    assert disk_of(tmp_path, tmp_path / "sys") == "8:0"
