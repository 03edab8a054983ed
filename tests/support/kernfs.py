"""A tree of cgroups as the kernel has it, where it matters to whoever makes them.

Rules of linux/Documentation/admin-guide/cgroup-v2.rst: a controller is had in a cgroup when the one
above hands it down; one that hands down has no processes, and none goes there; one with processes
or cgroups in it is not removed.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

# A few of each controller's.
FILES = {
    "memory": ("memory.max", "memory.swap.max", "memory.oom.group", "memory.events"),
    "cpu": ("cpu.max", "cpu.weight"),
    "io": ("io.max",),
    "pids": ("pids.max",),
}
ROOT = Path("/sys/fs/cgroup")
_QUIET = "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\n"


class Group:
    def __init__(self, owner: int = 0) -> None:
        self.owner = owner
        self.processes: set[int] = set()
        self.handed_down: set[str] = set()
        self.texts: dict[str, str] = {}
        self.marked = False
        # Zombies, and what a kernel thread holds up: `end` does not help.
        self.stuck = False


class Kernfs:
    """Implements `cgroup_tree.Tree`. `user` is whoever asks, and `me` its process."""

    def __init__(self, controllers: tuple[str, ...], *, user: int = 0, me: int = 1) -> None:
        self.controllers = controllers
        self.user = user
        self.me = me
        self.all: dict[Path, Group] = {ROOT: Group()}
        self.read_only = False
        # Files that this kernel does not know.
        self.unknown: set[str] = set()

    def add(self, path: str, owner: int = 0, *, marked: bool = False) -> Group:
        """A cgroup that somebody else has made, with what is above it handing all down."""
        group = ROOT
        for part in Path(path).parts[1:]:
            self.all[group].handed_down.update(self.controllers)
            group /= part
            self.all.setdefault(group, Group())
        self.all[group].owner = owner
        self.all[group].marked = marked
        return self.all[group]

    def has(self, group: Path) -> set[str]:
        """The controllers of one."""
        if group == ROOT:
            return set(self.controllers)
        return self.all[group.parent].handed_down & self.has(group.parent)

    def where(self, pid: int) -> Path:
        """The cgroup of a process."""
        return next(path for path, group in self.all.items() if pid in group.processes)

    def read(self, file: Path) -> str:
        group = self._group(file)
        known = {
            "cgroup.type": "domain\n",
            "cgroup.controllers": " ".join(sorted(self.has(file.parent))),
            "cgroup.subtree_control": " ".join(sorted(group.handed_down)),
            "cgroup.procs": "".join(f"{pid}\n" for pid in sorted(group.processes)),
            "cgroup.events": f"populated {int(self._populated(file.parent))}\nfrozen 0\n",
            "memory.events": _QUIET,
        }
        return group.texts.get(file.name, known.get(file.name, "max\n"))

    def write(self, file: Path, text: str) -> None:
        group = self._group(file)
        if file.name == "cgroup.procs":
            self._move(file.parent, group, int(text))
        elif file.name == "cgroup.subtree_control":
            controller = text.removeprefix("+")
            if controller not in self.has(file.parent):
                raise OSError(errno.ENOENT, "No such controller")
            if group.processes and file.parent != ROOT:
                raise OSError(errno.EBUSY, "Device or resource busy")
            group.handed_down.add(controller)
        else:
            group.texts[file.name] = text

    def make(self, group: Path) -> None:
        if group in self.all:
            raise FileExistsError(errno.EEXIST, "File exists")
        if group.parent not in self.all:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory")
        if self.read_only:
            raise OSError(errno.EROFS, "Read-only file system")
        self.all[group] = Group(self.user)

    def remove(self, group: Path) -> None:
        if self.all[group].processes or self.groups(group):
            raise OSError(errno.EBUSY, "Device or resource busy")
        del self.all[group]

    def groups(self, group: Path) -> list[str]:
        return sorted(path.name for path in self.all if path.parent == group != path)

    def is_there(self, path: Path) -> bool:
        if path in self.all:
            return True
        # The host's root has no type.
        return path.name == "cgroup.type" and path.parent in self.all and path.parent != ROOT

    def owner(self, group: Path) -> int:
        return self.all[group].owner

    def may_write(self, path: Path) -> bool:
        group = self.all.get(path) or self.all.get(path.parent)
        return group is not None and not self.read_only and self.user in (0, group.owner)

    def is_marked(self, group: Path) -> bool:
        return group in self.all and self.all[group].marked

    def end(self, group: Path, limit: float) -> bool:
        del limit
        if not self.all[group].stuck:
            self.all[group].processes.clear()
        return not self.all[group].processes

    def _group(self, file: Path) -> Group:
        group = self.all.get(file.parent)
        if group is None or file.name in self.unknown or not self._is_file(file):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(file))
        return group

    def _is_file(self, file: Path) -> bool:
        if file.name in ("cgroup.type", "cgroup.events"):
            return file.parent != ROOT
        controller = file.name.partition(".")[0]
        return controller == "cgroup" or (
            file.parent != ROOT
            and file.name in FILES[controller]
            and controller in self.has(file.parent)
        )

    def _populated(self, group: Path) -> bool:
        return any(one.processes for path, one in self.all.items() if path.is_relative_to(group))

    def _move(self, path: Path, group: Group, pid: int) -> None:
        if group.handed_down and path != ROOT:
            raise OSError(errno.EBUSY, "Device or resource busy")
        before = [one for one in self.all.values() if pid in one.processes]
        if not before:
            raise ProcessLookupError(errno.ESRCH, "No such process")
        before[0].processes.discard(pid)
        group.processes.add(pid)
