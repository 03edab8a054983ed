"""Folders as tars, made here and unpacked here. What a machine sends is not to be trusted."""

from __future__ import annotations

import errno
import io
import os
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, cast

from hyperfleet.errors import HyperfleetError

_PIECE = 256 * 1024


class UnsafeArchiveError(HyperfleetError):
    """Something in it would be made outside of the folder, or is no file, folder or link."""


def pack(folder: Path, *, owners: bool) -> Iterator[bytes]:
    """A folder as a tar, names relative to it; `owners`: whose things are, else they are root's.

    Raises:
        OSError: something in it can't be read, or was cut while it was.
    """
    with tarfile.TarFile(fileobj=io.BytesIO(), mode="w") as maker:
        for path in _inside(folder):
            # Names that share a file are files of their own.
            maker.inodes = {}  # type: ignore[attr-defined]
            member = maker.gettarinfo(path, str(path.relative_to(folder)))
            if member is None or not (member.isfile() or member.isdir() or member.issym()):
                continue
            if not owners:
                member.uid = member.gid = 0
                member.uname = member.gname = "root"
            yield member.tobuf(tarfile.PAX_FORMAT)
            if member.isfile():
                yield from _content(path, member.size)
    yield bytes(2 * tarfile.BLOCKSIZE)


def _inside(folder: Path) -> Iterator[Path]:
    """All that is in it, folders before what is in them."""
    for path in sorted(folder.iterdir()):
        yield path
        if path.is_dir() and not path.is_symlink():
            yield from _inside(path)


def _content(path: Path, size: int) -> Iterator[bytes]:
    """So many bytes of a file, filled up to whole blocks."""
    left = size
    with path.open("rb") as file:
        while left:
            piece = file.read(min(_PIECE, left))
            if not piece:
                raise OSError(errno.EIO, "it was cut while it was read", str(path))
            left -= len(piece)
            yield piece
    yield bytes(-size % tarfile.BLOCKSIZE)


def unpack(folder: Path, pieces: Iterable[bytes], *, owners: bool) -> None:
    """Makes what a tar holds in `folder`; files, folders and links that stay inside.

    Raises:
        UnsafeArchiveError: something of it would not; what came before it is there.
        tarfile.TarError: it is no tar.
    """
    folder.mkdir(parents=True, exist_ok=True)
    root = folder.resolve()
    with tarfile.open(fileobj=cast("IO[bytes]", _In(pieces)), mode="r|") as tar:
        for member in tar:
            if not (member.isfile() or member.isdir() or member.issym()):
                raise UnsafeArchiveError(f"{member.name} is no file, folder or symbolic link")
            place = _place(root, member.name)
            if member.issym():
                # Links are kept as they are; nothing is ever written through one.
                place.unlink(missing_ok=True)
                place.symlink_to(member.linkname)
                continue
            if member.isdir():
                if place.is_symlink():
                    raise UnsafeArchiveError(f"{member.name} is a folder where a link is")
                place.mkdir(exist_ok=True)
            else:
                _write(tar, member, place)
            if owners:
                os.chown(place, member.uid, member.gid)
            # Never setuid: whoever unpacks it here did not mean to trust it.
            place.chmod(member.mode & 0o777)


def _place(root: Path, name: str) -> Path:
    """Where a member belongs; its folder is real, and within."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise UnsafeArchiveError(f"{name} leads out of the folder")
    place = root / path
    if not place.parent.resolve().is_relative_to(root):
        raise UnsafeArchiveError(f"{name} leads out of the folder by a link")
    place.parent.mkdir(parents=True, exist_ok=True)
    return place


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, place: Path) -> None:
    source = tar.extractfile(member)
    assert source is not None  # noqa: S101 - it is a file
    # A link of that name is replaced, not followed.
    place.unlink(missing_ok=True)
    with place.open("xb") as file:
        while piece := source.read(1 << 16):
            file.write(piece)


class _In:
    """What tarfile reads: pieces as a stream."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._rest = b""

    def read(self, size: int) -> bytes:
        while len(self._rest) < size and (piece := next(self._pieces, b"")):
            self._rest += piece
        taken, self._rest = self._rest[:size], self._rest[size:]
        return taken
