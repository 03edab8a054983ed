"""Writes cpio archives in the `newc` format, which the kernel unpacks as initramfs.

The same entries give the same bytes: sorted, owned by root, times 0, inode numbers counted.
Format: linux/Documentation/driver-api/early-userspace/buffer-format.rst.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator

import msgspec

_MAGIC = b"070701"
_TRAILER = "TRAILER!!!"
# Archives are padded to this many bytes, as cpio(1) does.
_BLOCK = 512


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A file, folder or device. `path` is relative, without `./`; `mode` has the type's bits."""

    path: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def file(path: str, data: bytes, permissions: int = 0o644) -> Entry:
    """A regular file."""
    return Entry(path=path, mode=stat.S_IFREG | permissions, data=data)


def folder(path: str, permissions: int = 0o755) -> Entry:
    """A folder; it must be there before what lies in it, which the order by path sees to."""
    return Entry(path=path, mode=stat.S_IFDIR | permissions)


def character_device(path: str, major: int, minor: int, permissions: int = 0o600) -> Entry:
    """A character device's node."""
    return Entry(path=path, mode=stat.S_IFCHR | permissions, device=(major, minor))


def archive(entries: Iterable[Entry]) -> bytes:
    """The whole archive.

    Raises:
        ValueError: two entries have one path, or a path is not relative.
    """
    ordered = sorted(entries, key=lambda entry: entry.path)
    paths = [entry.path for entry in ordered]
    for path, following in zip(paths, [*paths[1:], None], strict=True):
        if path == following:
            raise ValueError(f"{path} is there twice")
        if not path or path.startswith(("/", "./")):
            raise ValueError(f"{path!r} is not a plain relative path")
    data = b"".join(_pieces(ordered))
    return data + bytes(-len(data) % _BLOCK)


def _pieces(entries: list[Entry]) -> Iterator[bytes]:
    for inode, entry in enumerate(entries, start=1):
        yield _header(inode, entry)
        yield entry.data
        yield bytes(-len(entry.data) % 4)
    yield _header(0, Entry(path=_TRAILER, mode=0))


def _header(inode: int, entry: Entry) -> bytes:
    name = entry.path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    fields = (
        inode,
        entry.mode,
        *(0, 0),  # owner, group
        links,
        0,  # time
        len(entry.data),
        *(0, 0),  # the device that holds it
        *entry.device,
        len(name),
        0,  # checksum; not in this variant
    )
    header = _MAGIC + b"".join(b"%08X" % field for field in fields) + name
    return header + bytes(-len(header) % 4)
