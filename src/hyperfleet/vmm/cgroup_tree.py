"""The kernel's tree of cgroups, as far as machines have to do with it.

Source: linux/Documentation/admin-guide/cgroup-v2.rst. Nothing but Python's own library, here and in
the other `cgroup` modules, so that tests can run them inside of a guest, whose kernel has it all.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import stat
import time
from pathlib import Path
from typing import Protocol

# What a service manager marks a cgroup with that it leaves to the service (systemd, "Control Group
# APIs and Delegation"); the second can be read by root alone, and is older.
_MARKS = ("user.delegate", "trusted.delegate")

# One by one is not at once: another process may have been born meanwhile.
_KILL_AGAIN_S = 0.2


class Tree(Protocol):
    """Cgroups and their files. Paths are absolute; everything raises OSError as the kernel does."""

    def read(self, file: Path) -> str:
        """A file's text."""

    def write(self, file: Path, text: str) -> None:
        """Writes it at once, as the kernel wants it."""

    def make(self, group: Path) -> None:
        """Makes a cgroup."""

    def remove(self, group: Path) -> None:
        """Removes one that has neither processes nor cgroups in it."""

    def groups(self, group: Path) -> list[str]:
        """The names of those in it."""

    def is_there(self, path: Path) -> bool:
        """Whether there is such a cgroup, or such a file of one."""

    def owner(self, group: Path) -> int:
        """Whose it is, a user's number."""

    def may_write(self, path: Path) -> bool:
        """Whether this process may write there."""

    def is_marked(self, group: Path) -> bool:
        """Whether a service manager says that it has delegated it."""

    def end(self, group: Path, limit: float) -> bool:
        """Kills what runs in it; whether all of that has ended within `limit` seconds."""


class Kernel:
    """The one of this host."""

    def read(self, file: Path) -> str:
        """See `Tree.read`."""
        return file.read_text(encoding="ascii")

    def write(self, file: Path, text: str) -> None:
        """See `Tree.write`. Never makes a file where there is none."""
        descriptor = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)

    def make(self, group: Path) -> None:
        """See `Tree.make`."""
        group.mkdir(mode=0o755)

    def remove(self, group: Path) -> None:
        """See `Tree.remove`. Its files go with it."""
        group.rmdir()

    def groups(self, group: Path) -> list[str]:
        """See `Tree.groups`."""
        return sorted(entry.name for entry in os.scandir(group) if entry.is_dir())

    def is_there(self, path: Path) -> bool:
        """See `Tree.is_there`."""
        return path.exists()

    def owner(self, group: Path) -> int:
        """See `Tree.owner`."""
        return group.stat().st_uid

    def may_write(self, path: Path) -> bool:
        """See `Tree.may_write`. A container's tree is read-only to root too."""
        return os.access(path, os.W_OK)

    def is_marked(self, group: Path) -> bool:
        """See `Tree.is_marked`."""
        for mark in _MARKS:
            with contextlib.suppress(OSError):
                if os.getxattr(group, mark) == b"1":
                    return True
        return False

    def end(self, group: Path, limit: float) -> bool:
        """See `Tree.end`. By `cgroup.kill` (Linux 5.14), else one by one."""
        deadline = time.monotonic() + limit
        with (group / "cgroup.events").open(encoding="ascii") as events:
            waiting = select.poll()
            # The kernel says so when a value changes ("cgroup.events").
            waiting.register(events, select.POLLPRI)
            while True:
                events.seek(0)
                if "populated 0" in events.read():
                    return True
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                if not self._kill_at_once(group):
                    self._kill_each(group)
                waiting.poll(min(left, _KILL_AGAIN_S) * 1000)

    def _kill_at_once(self, group: Path) -> bool:
        try:
            self.write(group / "cgroup.kill", "1")
        except FileNotFoundError:
            return False
        return True

    def _kill_each(self, group: Path) -> None:
        for pid in self.read(group / "cgroup.procs").split():
            try:
                held = os.pidfd_open(int(pid))
            except ProcessLookupError:
                continue
            try:
                # Another process may have that number by now: it is looked at while it is held.
                if pid in self.read(group / "cgroup.procs").split():
                    signal.pidfd_send_signal(held, signal.SIGKILL)
            except ProcessLookupError:
                pass
            finally:
                os.close(held)


def disk_of(place: Path, sys: Path = Path("/sys")) -> str | None:
    """The disk that a folder lies on, `MAJOR:MINOR` as io.max has it; None: it lies on none.

    A partition's is the whole disk's: limits are set for no less ("IO Interface Files").
    """
    device = place.stat().st_dev
    if os.major(device) == 0:
        # The file system has no one disk of its own (btrfs), or none at all (tmpfs).
        source = _source_of(place)
        if source is None:
            return None
        device = source
    entry = sys / "dev" / "block" / f"{os.major(device)}:{os.minor(device)}"
    try:
        entry = entry.resolve(strict=True)
        whole = entry.parent if (entry / "partition").exists() else entry
        return (whole / "dev").read_text(encoding="ascii").strip()
    except OSError:
        return None


def _source_of(place: Path) -> int | None:
    """The device number of what is mounted where `place` lies (proc(5), mountinfo)."""
    device = place.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
            if line.split()[2] == wanted:
                source = Path(line.partition(" - ")[2].split()[1])
                if source.is_absolute() and stat.S_ISBLK(source.stat().st_mode):
                    return source.stat().st_rdev
    return None
