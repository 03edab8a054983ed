from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from hyperfleet.images import cpio
from support.need import Need

ENTRIES = [
    cpio.file("modules/odd.ko", b"seven b", 0o600),
    cpio.folder("modules"),
    cpio.file("init", b"#!/bin/sh\n" * 100, 0o755),
    cpio.file("empty", b""),
    cpio.character_device("console", 5, 1),
]


def test_cpio_lists_what_was_written(need: Need) -> None:
    listing = _cpio(need, "-itv", "--numeric-uid-gid", archive=cpio.archive(ENTRIES))
    rows = [line.split() for line in listing.decode().splitlines()]
    assert [(row[0], row[2], row[3], row[-1]) for row in rows] == [
        ("crw-------", "0", "0", "console"),
        ("-rw-r--r--", "0", "0", "empty"),
        ("-rwxr-xr-x", "0", "0", "init"),
        ("drwxr-xr-x", "0", "0", "modules"),
        ("-rw-------", "0", "0", "modules/odd.ko"),
    ]
    assert rows[0][4:6] == ["5,", "1"]


def test_cpio_unpacks_the_same_bytes(need: Need, tmp_path: Path) -> None:
    files = [entry for entry in ENTRIES if entry.path != "console"]
    _cpio(need, "-id", "--quiet", archive=cpio.archive(files), folder=tmp_path)
    assert (tmp_path / "init").read_bytes() == b"#!/bin/sh\n" * 100
    assert (tmp_path / "init").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "modules/odd.ko").read_bytes() == b"seven b"
    assert (tmp_path / "empty").read_bytes() == b""


def test_same_entries_in_any_order_give_the_same_bytes() -> None:
    assert cpio.archive(ENTRIES) == cpio.archive(reversed(ENTRIES))


def test_archive_ends_on_a_block() -> None:
    assert len(cpio.archive(ENTRIES)) % 512 == 0


@pytest.mark.parametrize("path", ["/init", "./init", ""])
def test_a_path_that_is_not_plain_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="relative"):
        cpio.archive([cpio.file(path, b"")])


def test_the_same_path_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="init is there twice"):
        cpio.archive([cpio.file("init", b"a"), cpio.file("dev", b""), cpio.file("init", b"b")])


def _cpio(need: Need, *options: str, archive: bytes, folder: Path | None = None) -> bytes:
    command = [need("cpio"), *options]
    return subprocess.run(
        command, input=archive, capture_output=True, check=True, cwd=folder
    ).stdout
