"""Undoes the compressions that kernels and their modules come in."""

from __future__ import annotations

import bz2
import gzip
import lzma
import shutil
import subprocess
from collections.abc import Callable

from hyperfleet.errors import SetupError


def unpack(packed: bytes) -> bytes:
    """Undoes whichever compression `packed` starts as.

    Raises:
        SetupError: it is none that is known, or is damaged.
    """
    for start, undo in _FORMATS:
        if packed.startswith(start):
            try:
                return undo(packed)
            except (OSError, EOFError, ValueError, lzma.LZMAError) as error:
                raise SetupError(f"damaged: {error}") from error
    raise SetupError(f"packed in an unknown way (starts with {packed[:4].hex()})")


def _by_program(*command: str) -> Callable[[bytes], bytes]:
    def unpack(packed: bytes) -> bytes:
        if shutil.which(command[0]) is None:
            raise SetupError(f"{command[0]} is needed to unpack this: install {command[0]}")
        done = subprocess.run(command, input=packed, capture_output=True, check=False)
        if done.returncode != 0:
            words = done.stderr.decode(errors="replace").strip()
            raise SetupError(f"{command[0]} could not unpack it: {words}")
        return done.stdout

    return unpack


# How each kind of payload starts, and what undoes it. Python 3.11 knows neither LZ4 nor zstd.
_FORMATS: tuple[tuple[bytes, Callable[[bytes], bytes]], ...] = (
    (b"\x02\x21\x4c\x18", _by_program("lz4", "-dc")),
    (b"\x28\xb5\x2f\xfd", _by_program("zstd", "-dc")),
    (b"\x1f\x8b", gzip.decompress),
    (b"\xfd7zXZ\0", lzma.decompress),
    (b"\x5d\0\0", lzma.decompress),
    (b"BZh", bz2.decompress),
)
