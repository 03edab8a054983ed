"""A cgroup for each machine: what its processes may take of the host together.

BASE/control/             what was in BASE before, the server among it, where it was
BASE/machines-HOME/ID/    a machine's: QEMU, the gate, passt; also one whose template is made

HOME is made of the home's path, so that servers of several homes can share a BASE. A cgroup's name
is its machine's id: nothing of it is recorded, and nothing of it outlives the host's boot.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from hyperfleet.vmm import cgroup_base
from hyperfleet.vmm.cgroup_base import LEAF, Base, Sight
from hyperfleet.vmm.cgroup_tree import Kernel, Tree

_log = logging.getLogger(__name__)

_MIB = 1 << 20
# Microseconds; the kernel's own default ("CPU Interface Files").
_PERIOD = 100_000
_WEIGHT, _MOST_WEIGHT = 100, 10_000
# QEMU's threads beside its processors' (64 that read and write its disks, a few of its own), the
# gate and passt; far fewer than a process that forks without end.
_THREADS = 256
# What was killed has ended by then, or hangs in the kernel.
_END_S = 10.0
# Processes may be born in a cgroup while those before are moved out of it.
_MOVES = 100


class OutOfMemory(StrEnum):
    """Why the kernel killed a machine: its own limit was reached, or the host had none left."""

    OWN = "own"
    HOST = "host"


class Shares(NamedTuple):
    """What machines get beside what their guests were promised.

    `memory_mib`: for QEMU's own, the gate and passt. `cpu_percent`: of a CPU, for the same. `io`: a
    limit for reading and writing the home's disk in the words of io.max, `disk` which one that is.
    """

    memory_mib: int = 256
    cpu_percent: int = 100
    io: str = ""
    disk: str | None = None


# What one cgroup is held to: files and their texts.
Limits = tuple[tuple[str, str], ...]


def limits_of(shares: Shares, *, vcpus: int, mem_mib: int, weight: int | None = None) -> Limits:
    """A machine's; `mem_mib`: its guest's, with what is translated of it.

    It may have its memory and the share twice, once on the host's swap: so an idle machine can be
    swapped out whole, and one that has run wild has an end. Under contention CPUs go to machines
    by their virtual ones; `weight` is for those that are to stand back.
    """
    memory = (mem_mib + shares.memory_mib) * _MIB
    quota = (vcpus * 100 + shares.cpu_percent) * _PERIOD // 100
    rows = [
        ("memory.max", str(memory)),
        # Without swap on the host's kernel there is no such file.
        ("memory.swap.max", str(memory)),
        # A machine without its QEMU is none: they are killed together.
        ("memory.oom.group", "1"),
        ("cpu.max", f"{quota} {_PERIOD}"),
        ("cpu.weight", str(min(_MOST_WEIGHT, weight or vcpus * _WEIGHT))),
        ("pids.max", str(_THREADS + vcpus)),
    ]
    if shares.io and shares.disk is not None:
        rows.append(("io.max", f"{shares.disk} {shares.io}"))
    return tuple(rows)


class Cgroups:
    """Those of one home. Until `open` there are none, and all calls do nothing."""

    def __init__(
        self,
        home: Path,
        *,
        wanted: bool = True,
        shares: Shares | None = None,
        tree: Tree | None = None,
        look: Callable[[], Sight] = cgroup_base.look,
        place_of: Callable[[int], Path | None] = cgroup_base.place_of,
    ) -> None:
        """`wanted`: machines get one; else those that run in one are looked after all the same."""
        digest = hashlib.sha256(bytes(home.absolute())).hexdigest()
        self._name = f"machines-{digest[:12]}"
        self._shares = shares or Shares()
        self._tree: Tree = tree or Kernel()
        self._look = look
        self._place_of = place_of
        # Where new ones are made, once that is open, and what they are held by.
        self._folder: Path | None = None
        self._wanted = wanted
        self.controllers: frozenset[str] = frozenset()
        # Of machines that another server has put elsewhere; and why some ended while none ran.
        self._elsewhere: dict[str, Path] = {}
        self._ended: dict[str, OutOfMemory] = {}
        self._told: set[str] = set()

    def open(self) -> Sight:
        """Prepares the tree and removes what ended while no server ran; what can be had, is logged.

        Blocks shortly.
        """
        sight = self._opened(self._look())
        if not self._wanted:
            _log.info("machines have no limits by cgroups: they are off")
        elif self._folder is None:
            _log.warning("machines have no limits by cgroups: %s", sight.why)
        else:
            without = f", without {', '.join(sight.missing)}" if sight.missing else ""
            held = ", ".join(sight.controllers)
            _log.info("machines have limits by cgroups: %s%s (%s)", held, without, self._folder)
            if self._shares.io and (self._shares.disk is None or "io" in sight.missing):
                what = "no controller" if "io" in sight.missing else "no disk of its own"
                _log.warning("HYPERFLEET_CGROUP_IO_MAX is not in force: the home has %s", what)
        return sight

    def _opened(self, sight: Sight) -> Sight:
        if sight.base is None:
            return sight
        folder = sight.base.path / self._name
        if not self._wanted and not self._tree.is_there(folder):
            return sight
        try:
            self.controllers = self._prepare(sight.base, folder, sight.controllers)
        except OSError as error:
            why = f"{sight.base.path} can't be prepared: {error.strerror}"
            return sight._replace(base=None, controllers=(), why=why)
        self._sweep(folder)
        if sight.controllers and not self.controllers:
            return sight._replace(base=None, why=f"{sight.base.path} hands no controllers down")
        self._folder = folder
        had = tuple(one for one in cgroup_base.CONTROLLERS if one in self.controllers)
        missing = tuple(one for one in cgroup_base.CONTROLLERS if one not in had)
        return sight._replace(controllers=had, missing=missing)

    def make(
        self, machine_id: str, *, vcpus: int, mem_mib: int, weight: int | None = None
    ) -> Path | None:
        """An empty one for a machine of that size, as `limits_of` says; None: it has none."""
        limits = limits_of(self._shares, vcpus=vcpus, mem_mib=mem_mib, weight=weight)
        return self.make_with(machine_id, limits)

    def make_with(self, machine_id: str, limits: Limits) -> Path | None:
        """The same with any limits. What is left there of an earlier process is ended."""
        if self._folder is None or not self._wanted:
            return None
        self.remove(machine_id)
        if not self._tree.is_there(self._folder):
            # The unit was stopped, with all that ran in it, and may be there again.
            self._folder = None
            self.open()
        if self._folder is None:
            return None
        group = self._folder / machine_id
        try:
            self._tree.make(group)
        except OSError as error:
            self._tell(f"machines have no limits: {group} can't be made: {error.strerror}")
            return None
        for file, text in limits:
            self._limit(group / file, text)
        return group

    def adopt(self, machine_id: str, pid: int) -> None:
        """Finds that of a process that runs: another server may have put it elsewhere."""
        place = self._place_of(pid)
        if place is not None and place.parts[-2:] == (self._name, machine_id):
            self._elsewhere[machine_id] = place

    def out_of_memory(self, machine_id: str) -> OutOfMemory | None:
        """Whether the kernel has killed its processes for want of memory; asked before `remove`."""
        group = self._of(machine_id)
        found = None if group is None else self._killed(group)
        return found or self._ended.get(machine_id)

    def remove(self, machine_id: str) -> None:
        """Ends what runs in the machine's and removes it; no error where there is none. Blocks."""
        self._ended.pop(machine_id, None)
        group = self._of(machine_id)
        self._elsewhere.pop(machine_id, None)
        if group is None or not self._tree.is_there(group):
            return
        try:
            self._tree.end(group, _END_S)
            self._tree.remove(group)
        except FileNotFoundError:
            return
        except OSError as error:
            # The next start of the server, or of the machine, tries again.
            _log.warning("cgroup %s can't be removed: %s", group, error.strerror)

    def _of(self, machine_id: str) -> Path | None:
        if (elsewhere := self._elsewhere.get(machine_id)) is not None:
            return elsewhere
        return None if self._folder is None else self._folder / machine_id

    def _prepare(self, base: Base, folder: Path, wanted: tuple[str, ...]) -> frozenset[str]:
        if base.above is not None:
            self._make_if_missing(base.path)
            self._hand_down(base.above, wanted)
        self._vacate(base.path)
        self._hand_down(base.path, wanted)
        self._make_if_missing(folder)
        self._hand_down(folder, wanted)
        return frozenset(self._words(folder / "cgroup.subtree_control")) & frozenset(wanted)

    def _make_if_missing(self, group: Path) -> None:
        with contextlib.suppress(FileExistsError):
            self._tree.make(group)

    def _vacate(self, base: Path) -> None:
        """A cgroup that hands controllers down has no processes of its own."""
        leaf = base / LEAF
        for _ in range(_MOVES):
            pids = self._words(base / "cgroup.procs")
            if not pids:
                return
            self._make_if_missing(leaf)
            for pid in pids:
                try:
                    self._tree.write(leaf / "cgroup.procs", pid)
                except OSError as error:
                    if error.errno != errno.ESRCH:
                        raise

    def _hand_down(self, group: Path, wanted: tuple[str, ...]) -> None:
        """One by one: what can be had is had without what can't."""
        file = group / "cgroup.subtree_control"
        there = self._words(file)
        for controller in wanted:
            if controller in there or controller not in self._words(group / "cgroup.controllers"):
                continue
            try:
                self._tree.write(file, f"+{controller}")
            except OSError as error:
                self._tell(f"{group} does not hand down {controller}: {error.strerror}")

    def _sweep(self, folder: Path) -> None:
        for name in self._tree.groups(folder):
            group = folder / name
            with contextlib.suppress(OSError):
                if "populated 0" in self._tree.read(group / "cgroup.events"):
                    if (why := self._killed(group)) is not None:
                        self._ended[name] = why
                    self._tree.remove(group)

    def _killed(self, group: Path) -> OutOfMemory | None:
        """See "memory.events": `oom` counts this limit's, `oom_kill` the kills of anybody's."""
        try:
            text = self._tree.read(group / "memory.events")
        except OSError:
            return None
        counts = dict(line.split() for line in text.splitlines())
        if int(counts.get("oom_kill", "0")) == 0:
            return None
        return OutOfMemory.OWN if int(counts.get("oom", "0")) else OutOfMemory.HOST

    def _limit(self, file: Path, text: str) -> None:
        try:
            self._tree.write(file, text)
        except FileNotFoundError:
            # Of a controller that could not be had, or not of this kernel.
            return
        except OSError as error:
            self._tell(f"{file.name} can't be set to {text!r}: {error.strerror}")

    def _words(self, file: Path) -> list[str]:
        return self._tree.read(file).split()

    def _tell(self, what: str) -> None:
        """Once is enough."""
        if what not in self._told:
            self._told.add(what)
            _log.warning("cgroups: %s", what)


def without() -> Cgroups:
    """None for anybody."""
    return Cgroups(Path("/"), wanted=False, look=lambda: Sight(None, (), ()))
