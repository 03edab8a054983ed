"""`hyperfleet cp`: files and folders into machines and out of them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Annotated

import typer

from hyperfleet.cli import archive
from hyperfleet.cli.connect import connect
from hyperfleet.client import ApiError, Client, FileInfo

_PIECE = 256 * 1024
_STREAM = "-"


def cp(
    source: Annotated[str, typer.Argument(help="A path here, MACHINE:PATH, or - for the input.")],
    target: Annotated[str, typer.Argument(help="A path here, MACHINE:PATH, or - for the output.")],
    *,
    owners: Annotated[
        bool,
        typer.Option(
            "--owners", "-a", help="Keep user and group ids; else things are root's, or yours."
        ),
    ] = False,
) -> None:
    """Copy a file or a whole folder into a machine, or out of one.

    Where the target is a folder that is there, or ends with /, it goes into that. Modes are kept.
    """
    to, out_of = _remote(target), _remote(source)
    if (to is None) == (out_of is None):
        raise typer.BadParameter("one of the two must be MACHINE:PATH, the other a path here")
    with connect() as client:
        if to is not None:
            _into(client, source, *to, owners=owners)
        elif out_of is not None:
            _out(client, *out_of, target, owners=owners)


def _remote(text: str) -> tuple[str, str] | None:
    """Machine and path; None for a path here, which may hold a colon after a slash."""
    machine, colon, path = text.partition(":")
    if not colon or "/" in machine or not machine:
        return None
    if not path.startswith("/"):
        raise typer.BadParameter(f"{text}: a path in a machine begins with /")
    return machine, path


def _into(client: Client, source: str, machine: str, path: str, *, owners: bool) -> None:
    if source == _STREAM:
        client.write_file(machine, path, _shown(_read(sys.stdin.fileno()), "-", None))
        return
    here = Path(source)
    try:
        found = here.stat()
    except OSError as error:
        raise typer.BadParameter(f"{source}: {error.strerror}") from error
    path = _within(client, machine, path, here.resolve().name)
    if here.is_dir():
        tar = archive.pack(here, owners=owners)
        client.unpack_folder(machine, path, _shown(tar, source, None))
        return
    with here.open("rb") as file:
        client.write_file(
            machine,
            path,
            _shown(_read(file.fileno()), source, found.st_size),
            mode=found.st_mode & 0o7777,
            owner=f"{found.st_uid}:{found.st_gid}" if owners else None,
        )


def _within(client: Client, machine: str, path: str, name: str) -> str:
    """The path itself, or below it where it is a folder."""
    try:
        folder = client.stat_file(machine, path).type == "folder"
    except ApiError as error:
        # Where it is the machine that is not there, what follows says so.
        if error.code != "NOT_FOUND":
            raise
        folder = path.endswith("/")
    return str(PurePosixPath(path) / name) if folder else path


def _out(client: Client, machine: str, path: str, target: str, *, owners: bool) -> None:
    found = client.stat_file(machine, path)
    if target == _STREAM:
        pieces = (client.pack_folder if found.type == "folder" else client.read_file)(machine, path)
        for piece in pieces:
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
        return
    here = Path(target)
    if here.is_dir() or target.endswith("/"):
        here /= found.name or machine
    here.parent.mkdir(parents=True, exist_ok=True)
    if found.type == "folder":
        tar = _shown(client.pack_folder(machine, path), path, None)
        archive.unpack(here, tar, owners=owners)
    else:
        pieces = _shown(client.read_file(machine, path), path, found.size)
        _save(here, pieces, found, owners=owners)


def _save(here: Path, pieces: Iterable[bytes], found: FileInfo, *, owners: bool) -> None:
    """The file is there whole, or as it was before."""
    part = here.with_name(f".{here.name}.{os.getpid()}.part")
    try:
        with part.open("xb") as file:
            for piece in pieces:
                file.write(piece)
        if owners:
            uid, _, gid = found.owner.partition(":")
            os.chown(part, int(uid), int(gid))
        part.chmod(int(found.mode, 8) & 0o777)
        part.replace(here)
    finally:
        part.unlink(missing_ok=True)


def _read(descriptor: int) -> Iterator[bytes]:
    while piece := os.read(descriptor, _PIECE):
        yield piece


def _shown(pieces: Iterable[bytes], what: str, size: int | None) -> Iterator[bytes]:
    """The same, with a bar on a terminal."""
    if not sys.stderr.isatty():
        yield from pieces
        return
    from rich import progress  # noqa: PLC0415 - see output.py
    from rich.console import Console  # noqa: PLC0415

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
    )
    with progress.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=size)
        for piece in pieces:
            yield piece
            bar.advance(task, len(piece))
