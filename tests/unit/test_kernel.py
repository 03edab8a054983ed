from __future__ import annotations

import bz2
import gzip
import lzma
import struct
import subprocess
from collections.abc import Callable

import pytest

from hyperfleet.errors import SetupError
from hyperfleet.images import kernel
from support.need import Need

RELEASE = "6.1.0-9-cloud-amd64"
PLAIN = (
    b"\x7fELF" + b"Linux version " + RELEASE.encode() + b" (someone) #1\0" + bytes(range(256)) * 40
)

PYTHON_FORMATS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "lzma": lambda data: lzma.compress(data, format=lzma.FORMAT_ALONE),
    "bzip2": bz2.compress,
}
PROGRAM_FORMATS = {"lz4": ["lz4", "-l", "-c"], "zstd": ["zstd", "-q", "-c"]}


def bzimage(packed: bytes, unpacked_length: int = len(PLAIN), protocol: int = 0x20F) -> bytes:
    """A bzImage as boot.rst lays it out: two setup sectors, then code, then the payload."""
    setup = bytearray(3 * 512)
    setup[0x1F1] = 2
    setup[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", setup, 0x206, protocol)
    struct.pack_into("<H", setup, 0x20E, 0x300 - 0x200)
    version = f"{RELEASE} (someone) #1 SMP".encode() + b"\0"
    setup[0x300 : 0x300 + len(version)] = version
    code = b"decompressor"
    payload = packed + struct.pack("<I", unpacked_length)
    struct.pack_into("<II", setup, 0x248, len(code), len(payload))
    return bytes(setup) + code + payload + b"what follows the payload"


@pytest.mark.parametrize("name", PYTHON_FORMATS)
def test_extracts_what_python_can_unpack(name: str) -> None:
    assert kernel.extract(bzimage(PYTHON_FORMATS[name](PLAIN))) == PLAIN


@pytest.mark.parametrize("name", PROGRAM_FORMATS)
def test_extracts_what_a_program_unpacks(name: str, need: Need) -> None:
    need(name)
    packed = subprocess.run(
        PROGRAM_FORMATS[name], input=PLAIN, capture_output=True, check=True
    ).stdout
    assert kernel.extract(bzimage(packed)) == PLAIN


def test_a_plain_kernel_stays_as_it_is() -> None:
    assert kernel.extract(PLAIN) is PLAIN


@pytest.mark.parametrize("image", [PLAIN, bzimage(gzip.compress(PLAIN))], ids=["elf", "bzimage"])
def test_says_its_release(image: bytes) -> None:
    assert kernel.release(image) == RELEASE


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (b"", "not a Linux kernel"),
        (b"MZ" + bytes(2000), "not a Linux kernel"),
        (bzimage(gzip.compress(PLAIN))[:0x220], "not a Linux kernel"),
        (bzimage(gzip.compress(PLAIN))[:1800], "ends before"),
        (bzimage(gzip.compress(PLAIN), protocol=0x207), "too old"),
        (bzimage(gzip.compress(PLAIN), unpacked_length=5), "does not unpack"),
        (bzimage(gzip.compress(PLAIN)[:-20]), "damaged"),
        (bzimage(lzma.compress(PLAIN)[:-20]), "damaged"),
        (bzimage(gzip.compress(b"no ELF"), unpacked_length=6), "does not unpack"),
        (bzimage(b"\x99\x98\x97\x96 and so on"), "unknown way .*99989796"),
    ],
)
def test_what_is_no_kernel_is_refused_with_the_reason(image: bytes, words: str) -> None:
    with pytest.raises(SetupError, match=words):
        kernel.extract(image)


def test_a_file_without_a_release_is_refused() -> None:
    with pytest.raises(SetupError, match="release"):
        kernel.release(b"\x7fELF and nothing else")
