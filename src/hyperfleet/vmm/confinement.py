"""What a machine's QEMU is let do on its host, beside what its own sandbox forbids.

It is started by `hyperfleet-confine`: no new privileges, no core dumps, a bound on its files; in
the machine's cgroup (`cgroup.py`), where it has one.
Where the server is root, it also has a user of its own, one for each machine: QEMU that a guest has
broken out of finds a directory that it can't write to, two files of its own, and nobody else's.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path

import msgspec

from hyperfleet.errors import GuestError, SetupError

# 2^27 ids above those that systemd has for containers (0x6FFFFFFF at most) and below those it has
# for files of foreign owners (0x7FFE0000); see systemd's "Users, Groups, UIDs and GIDs". Two of a
# thousand machines share one once in 270 such hosts.
FIRST_USER, USERS = 0x7000_0000, 1 << 27

_ID_MAP = Path("/proc/self/uid_map")
_KVM = Path("/dev/kvm")
# Ended before the server (0) and most else, where the host's memory is out.
_OOM_SCORE = 300
# The magic of a qcow2 header and where in it the disk's size is (QEMU's docs/interop/qcow2.txt).
_QCOW2, _SIZE_AT, _HEADER = b"QFI\xfb", 24, 32
# What metadata takes at most of a qcow2 with 64 KiB clusters is under 1/1000; a console needs some.
_METADATA, _SPARE = 64, 256 << 20


class User(msgspec.Struct, frozen=True):
    """Whom a machine's process becomes; `groups` beside its own."""

    uid: int
    groups: tuple[int, ...] = ()


def user_of(machine_id: str, *, kvm: bool = False) -> User | None:
    """The machine's own; None where this process can't become others.

    None, too, with `kvm` where its device is root's alone.
    """
    if not (os.geteuid() == 0 and is_mapped()):
        return None
    digest = hashlib.sha256(f"user of {machine_id}".encode()).digest()
    groups: tuple[int, ...] = ()
    if kvm and not (device := _KVM.stat()).st_mode & stat.S_IWOTH:
        if device.st_gid == 0 or not device.st_mode & stat.S_IWGRP:
            # Root's alone.
            return None
        groups = (device.st_gid,)
    return User(FIRST_USER + int.from_bytes(digest[:8], "big") % USERS, groups)


def is_mapped() -> bool:
    """Whether this user namespace has the ids (user_namespaces(7)): rootless containers do not."""
    try:
        rows = [[int(word) for word in line.split()] for line in _ID_MAP.read_text().splitlines()]
    except (OSError, ValueError):
        return False
    last = FIRST_USER + USERS - 1
    return any(first <= FIRST_USER and last < first + count for first, _, count in rows)


def prefix(
    program: Callable[[], Path],
    user: User | None,
    largest_file: int,
    cgroup: Path | None = None,
) -> list[str]:
    """What stands before QEMU's command line. `largest_file`: bytes that it may make one of.

    It begins in `cgroup`, where there is one.

    Raises:
        GuestError: the program is not there; the message says how to get it.
    """
    try:
        words = [str(program()), "--oom-score", str(_OOM_SCORE)]
    except SetupError as error:
        raise GuestError(str(error)) from error
    words += ["--file-size", str(largest_file)]
    if cgroup is not None:
        words += ["--cgroup", str(cgroup)]
    if user is not None:
        words += ["--user", f"{user.uid}:{user.uid}"]
        for group in user.groups:
            words += ["--group", str(group)]
    return [*words, "--"]


def largest_file(disk: Path) -> int:
    """Bytes of the largest file that a machine with this disk has a use for.

    Raises:
        GuestError: it is no disk of a machine.
    """
    size = _virtual_size(disk)
    return size + size // _METADATA + _SPARE


def hand_over(directory: Path, files: tuple[str, ...], user: User) -> None:
    """Lets the user into a machine's directory, and gives it `files` there; missing ones are made.

    Nothing can be made, renamed or removed there by it, so what we open there is what we made.
    Safe to repeat; from whatever an earlier version left.
    """
    for name in files:
        descriptor = os.open(
            directory / name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )
        try:
            os.fchmod(descriptor, 0o600)
            os.fchown(descriptor, user.uid, user.uid)
        finally:
            os.close(descriptor)
    os.chown(directory, 0, user.uid)
    directory.chmod(0o710)


def readable(path: Path) -> int:
    """A descriptor by whose name in /dev/fd any user can open the file. The caller closes it.

    Its folder may be closed to them, and it itself: then it is a copy.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    if os.fstat(descriptor).st_mode & stat.S_IROTH:
        return descriptor
    try:
        copy = os.memfd_create(path.name)
        try:
            offset = 0
            while sent := os.sendfile(copy, descriptor, offset, 1 << 30):
                offset += sent
        except BaseException:
            os.close(copy)
            raise
        return copy
    finally:
        os.close(descriptor)


def _virtual_size(disk: Path) -> int:
    """Bytes of a qcow2 image as its guest sees it.

    Raises:
        GuestError: it is none.
    """
    with disk.open("rb") as file:
        header = file.read(_HEADER)
    if len(header) < _HEADER or not header.startswith(_QCOW2):
        raise GuestError(f"{disk} is no qcow2 image")
    return int.from_bytes(header[_SIZE_AT:_HEADER], "big")
