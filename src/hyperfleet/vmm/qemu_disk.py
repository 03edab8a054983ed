"""A machine's own disk: a qcow2 overlay over a base that is shared and never written.

The base is kept by a hard link in the machine's folder, so that a base which is built anew under
its old name leaves the machines on the old one whole. Where links can't be made, and for a base
that is written in place, its size and time tell: over a changed base an overlay is garbage, so the
start is refused.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from hyperfleet import durable
from hyperfleet.errors import CapacityError, GuestError, ValidationError
from hyperfleet.vmm import shortage, sparse

DISK = "disk.qcow2"
# No checksums of metadata: work that a guest would do at every write. Tables of inodes are zeros in
# a new file anyway; where nobody writes them, they take no room (ext4(5), uninit_bg).
_FEATURES = "has_journal,uninit_bg,^metadata_csum,^64bit"
_NOT_NOW = "lazy_itable_init=1,lazy_journal_init=1"
_BASE_LINK = "base.raw"
_RECORD = "base.json"


class _Base(msgspec.Struct, frozen=True):
    """Which base the overlay stands on: its path as given, and what it was then."""

    path: str
    backing: str
    size: int
    mtime_ns: int


def prepare(
    directory: Path,
    base: Path,
    *,
    size_mib: int | None = None,
    qemu_img: str,
    environment: Mapping[str, str],
) -> None:
    """Makes the overlay if there is none; checks that its base is as it was. Blocks.

    `base` and `size_mib` (None: as large as the base) matter for a new overlay only: a machine
    stays on what it began with. Each file is made under another name and renamed, so that a crash
    leaves nothing half-made in place.

    Raises:
        ValidationError: the base is missing, larger than that, or has changed since the overlay
            was made.
        GuestError: qemu-img failed; the message holds its words.
        CapacityError: it had no room.
    """
    disk = directory / DISK
    if disk.exists():
        _check(directory)
        return
    try:
        base = base.resolve()  # a link may lead elsewhere tomorrow
        stat = base.stat()
    except OSError as error:
        raise ValidationError(f"rootfs_path: {base}: {error.strerror}") from error
    if size_mib is not None and size_mib << 20 < stat.st_size:
        raise ValidationError(
            f"disk_size_mib must be at least the {-(-stat.st_size >> 20)} MiB of its image"
        )
    backing = _keep(directory, base)
    record = _Base(str(base), backing, stat.st_size, stat.st_mtime_ns)
    _write(directory / _RECORD, msgspec.json.encode(record))
    fresh = directory / f"{DISK}.new"
    command = [qemu_img, "create", "-q", "-f", "qcow2", "-F", "raw", "-b", backing, str(fresh)]
    command += [] if size_mib is None else [f"{size_mib}M"]
    _run(command, "qemu-utils", environment, directory)
    fresh.replace(disk)


def make_data(file: Path, size_mib: int, *, environment: Mapping[str, str]) -> None:
    """Makes a data disk: a raw image with an empty ext4 file system, sparse. Blocks.

    Raises:
        GuestError: mke2fs failed or is not there; the message holds its words.
        CapacityError: it had no room.
    """
    command = ["mke2fs", "-q", "-F", "-t", "ext4", "-O", _FEATURES, "-E", _NOT_NOW]
    command += ["-b", "4096", "-m", "0"]
    # Blocks for a file system that grows to a thousand times its size are kept (resize_inode).
    _run([*command, str(file), f"{size_mib}M"], "e2fsprogs", environment, file)


def base_of(directory: Path) -> Path:
    """What the machine's overlay, which `prepare` has seen, stands on."""
    record = msgspec.json.decode((directory / _RECORD).read_bytes(), type=_Base)
    return directory / record.backing


def copy(source: Path, target: Path) -> None:
    """Copies the disk that nobody writes to now from one folder to another. Blocks; not durable.

    Raises:
        ValidationError: there is none.
        CapacityError: no room on the host's disk.
    """
    with shortage.told(target):
        try:
            record = msgspec.json.decode((source / _RECORD).read_bytes(), type=_Base)
            disk = (source / DISK).open("rb")
        except (OSError, msgspec.MsgspecError) as error:
            raise ValidationError(f"there is no disk to copy: {error}") from error
        with disk:
            if record.backing == _BASE_LINK:
                (target / _BASE_LINK).hardlink_to(source / _BASE_LINK)
            (target / _RECORD).write_bytes(msgspec.json.encode(record))
            with (target / DISK).open("xb") as copy:
                sparse.copy(disk, copy)


def _run(command: Sequence[str], package: str, environment: Mapping[str, str], place: Path) -> None:
    # Debian keeps mke2fs where an ordinary user's PATH does not look.
    path = f"{environment.get('PATH', '')}:/usr/sbin:/sbin"
    try:
        subprocess.run(
            command,
            check=True,
            capture_output=True,
            env={**environment, "PATH": path},
            text=True,
            timeout=60,
        )
    except FileNotFoundError as error:
        raise GuestError(f"{command[0]} is not installed (Debian: {package})") from error
    except subprocess.TimeoutExpired as error:
        raise GuestError(f"a disk was not made within 60 s: {place}") from error
    except subprocess.CalledProcessError as error:
        if shortage.is_no_room(error.stderr):
            raise CapacityError(f"{place}: {error.stderr.strip()}") from error
        raise GuestError(f"a disk could not be made: {error.stderr.strip()}") from error


def _keep(directory: Path, base: Path) -> str:
    """What the overlay shall name as its backing file: the link, or the base's own path."""
    link = directory / _BASE_LINK
    link.unlink(missing_ok=True)
    try:
        link.hardlink_to(base)
    except OSError:
        # Another file system, or not our file (fs.protected_hardlinks).
        return str(base)
    return _BASE_LINK


def _check(directory: Path) -> None:
    try:
        record = msgspec.json.decode((directory / _RECORD).read_bytes(), type=_Base)
        stat = (directory / record.backing).stat()
    except (OSError, msgspec.MsgspecError) as error:
        raise ValidationError(
            f"rootfs_path: the base of this machine's disk is gone or unknown ({error}); "
            "the machine must be deleted and made anew"
        ) from error
    if (stat.st_size, stat.st_mtime_ns) != (record.size, record.mtime_ns):
        raise ValidationError(
            f"rootfs_path: {record.path} was written to after this machine's disk was made over it,"
            " so that disk can't be read any more; the machine must be deleted and made anew"
        )


def _write(path: Path, data: bytes) -> None:
    fresh = path.with_name(f"{path.name}.new")
    durable.write(fresh, data)
    fresh.replace(path)
