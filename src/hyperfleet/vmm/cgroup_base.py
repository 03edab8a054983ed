"""Where on this host the cgroups of machines may be made, and which controllers they would have.

Nobody's tree is written to that is not this server's: either a cgroup has been delegated to it
(by systemd, by a container's runtime, by an administrator), or it is root and has one of its own
beside what the service manager has. Sources: cgroup-v2.rst, "Delegation" and "No Internal Process
Constraint"; systemd, "Control Group APIs and Delegation".
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from hyperfleet.vmm.cgroup_tree import Kernel, Tree

CONTROLLERS = ("cpu", "memory", "io", "pids")
# The unit whose cgroup is the machines', beside the server's own: a service manager could not start
# a server again in a cgroup that machines still have their limits by.
UNIT = "hyperfleet-machines.service"
# Root's own, where nothing is delegated.
TOP = "hyperfleet"
# Where processes are put that a cgroup may not have beside cgroups.
LEAF = "control"

_MEND_V1 = "boot the host with systemd.unified_cgroup_hierarchy=1"
_MEND_ROOT = "start the server where /sys/fs/cgroup can be written to"
_MEND_USER = (
    f"install and start {UNIT} (packaging/systemd), or start the server by"
    " `systemd-run --user --scope -p Delegate=yes`"
)


class Base(NamedTuple):
    """A cgroup to make others in. `above`: what must hand its controllers down first."""

    path: Path
    above: Path | None = None


class Sight(NamedTuple):
    """What was found. `base`: None where there can be no limits; `why` and `mend` say so then.

    `controllers` are those that can be had, `missing` those that can't.
    """

    base: Base | None
    controllers: tuple[str, ...]
    missing: tuple[str, ...]
    why: str | None = None
    mend: str | None = None


class Mount(NamedTuple):
    """Where the tree is seen, and which of its cgroups is seen there."""

    place: Path
    root: str


def look(tree: Tree | None = None) -> Sight:
    """Looks at this process's own place. Changes nothing."""
    own = Path("/proc/self/cgroup").read_text(encoding="utf-8")
    mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8")
    return find(tree or Kernel(), own, mounts, os.geteuid())


def place_of(pid: int) -> Path | None:
    """Where the cgroup of a process is seen; None: it is not, or there is no such process."""
    try:
        cgroups = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8")
        mount = _mount(Path("/proc/self/mountinfo").read_text(encoding="utf-8"))
    except OSError:
        return None
    return None if mount is None else _place(mount, cgroups)


def find(tree: Tree, own: str, mounts: str, uid: int) -> Sight:
    """The same from what /proc says: `own` is its cgroup, `mounts` its mountinfo (proc(5))."""
    mount = _mount(mounts)
    if mount is None:
        return _nothing("no cgroup2 is mounted here", _MEND_V1)
    offered = _words(tree, mount.place / "cgroup.controllers")
    if not set(offered) & set(CONTROLLERS):
        return _nothing(
            f"{mount.place} has no controllers: cgroup v1 has them, or the kernel has none",
            _MEND_V1,
        )
    place = _place(mount, own)
    if place is None:
        return _nothing("this process's cgroup is not to be seen here", _MEND_ROOT)
    for base in _candidates(tree, mount.place, place, uid):
        if not _is_usable(tree, base, place):
            continue
        given = _words(tree, (base.above or base.path) / "cgroup.controllers")
        had = tuple(one for one in CONTROLLERS if one in given)
        if had:
            missing = tuple(one for one in CONTROLLERS if one not in had)
            return Sight(base, had, missing)
    return _nothing(
        f"no cgroup with controllers is left to this server ({place} is not)",
        _MEND_USER if uid else _MEND_ROOT,
    )


def _nothing(why: str, mend: str) -> Sight:
    return Sight(None, (), CONTROLLERS, why, mend)


def _mount(mounts: str) -> Mount | None:
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        if after.split()[:1] == ["cgroup2"]:
            root, place = before.split()[3:5]
            return Mount(Path(place), root)
    return None


def _place(mount: Mount, own: str) -> Path | None:
    """Where this process's own cgroup is seen."""
    for line in own.splitlines():
        number, _, path = line.split(":", 2)
        if number == "0":
            inside = os.path.relpath(path, mount.root)
            # One outside of its namespace begins with /.. (cgroup_namespaces(7)).
            if inside.startswith("..") or "/../" in f"{path}/":
                return None
            return mount.place if inside == "." else mount.place / inside
    return None


def _candidates(tree: Tree, mount: Path, own: Path, uid: int) -> Iterator[Base]:
    if own != mount and tree.is_marked(own.parent / UNIT):
        yield Base(own.parent / UNIT)
    # A server before this one may have put it, or what started it, there.
    inner = own.parent if own.name == LEAF and own != mount else own
    if _is_delegated(tree, mount, inner, uid):
        yield Base(inner)
    if uid == 0:
        yield Base(mount / TOP, above=mount)


def _is_delegated(tree: Tree, mount: Path, group: Path, uid: int) -> bool:
    if tree.is_marked(group):
        return True
    if group == mount:
        # A container's own has a type, the host's root has none ("Core Interface Files").
        return tree.is_there(group / "cgroup.type")
    # Given to an ordinary user by hand: not a piece of what its service manager has.
    return uid != 0 and tree.owner(group) == uid and tree.owner(group.parent) != uid


def _is_usable(tree: Tree, base: Base, own: Path) -> bool:
    """Whether cgroups may be made there, and processes be moved into them from `own`."""
    if base.above is not None and not tree.is_there(base.path):
        return tree.may_write(base.above) and tree.may_write(base.above / "cgroup.subtree_control")
    kind = _words(tree, base.path / "cgroup.type")
    common = Path(os.path.commonpath((base.path, own)))
    return kind in ([], ["domain"]) and all(
        tree.may_write(path)
        for path in (
            base.path,
            base.path / "cgroup.subtree_control",
            base.path / "cgroup.procs",
            # "Delegation Containment": also of what is above both.
            common / "cgroup.procs",
        )
    )


def _words(tree: Tree, file: Path) -> list[str]:
    try:
        return tree.read(file).split()
    except OSError:
        return []
