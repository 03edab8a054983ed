"""Takes the plain ELF kernel out of a compressed one.

A plain `vmlinux` boots faster than a bzImage, which unpacks itself inside the machine.
Header of a bzImage: linux/Documentation/arch/x86/boot.rst, protocol 2.08 and later.
"""

from __future__ import annotations

import re
import struct

from hyperfleet.errors import SetupError
from hyperfleet.images.compression import unpack

ELF_MAGIC = b"\x7fELF"

_SECTOR = 512
_HEADER_MAGIC = b"HdrS"
_HEADER_MAGIC_AT = 0x202
_SETUP_SECTORS_AT = 0x1F1
_PROTOCOL_AT = 0x206
_PAYLOAD_AT = 0x248
_PAYLOAD_PROTOCOL = 0x208
_VERSION_POINTER_AT = 0x20E
_VERSION_BASE = 0x200
_HEADER_END = 0x250
# The payload ends with its unpacked length: u32, little endian.
_LENGTH_BYTES = 4

_BANNER = re.compile(rb"Linux version (\d[^ \0]{0,127}) ")


def is_elf(start: bytes) -> bool:
    """Whether a file that starts so is an ELF file, as a plain kernel is."""
    return start.startswith(ELF_MAGIC)


def is_bzimage(start: bytes) -> bool:
    """Whether a file that starts so (its first 1024 bytes are enough) is a bzImage."""
    return start[_HEADER_MAGIC_AT : _HEADER_MAGIC_AT + 4] == _HEADER_MAGIC


def extract(image: bytes) -> bytes:
    """The plain ELF kernel in `image`, which is a bzImage or one already.

    Raises:
        SetupError: it is neither, or it is packed in a way that can't be undone here.
    """
    if is_elf(image):
        return image
    if not is_bzimage(image) or len(image) < _HEADER_END:
        raise SetupError("not a Linux kernel for x86: neither an ELF file nor a bzImage")
    (protocol,) = struct.unpack_from("<H", image, _PROTOCOL_AT)
    if protocol < _PAYLOAD_PROTOCOL:
        raise SetupError(
            f"boot protocol {protocol:#x} is too old, {_PAYLOAD_PROTOCOL:#x} is needed"
        )
    # 0 stands for 4, says the boot protocol.
    setup_sectors = image[_SETUP_SECTORS_AT] or 4
    offset, length = struct.unpack_from("<II", image, _PAYLOAD_AT)
    start = (setup_sectors + 1) * _SECTOR + offset
    payload = image[start : start + length]
    if len(payload) != length or length <= _LENGTH_BYTES:
        raise SetupError("the kernel's file ends before its payload does")
    packed = payload[:-_LENGTH_BYTES]
    (unpacked_length,) = struct.unpack("<I", payload[-_LENGTH_BYTES:])
    kernel = unpack(packed)
    if len(kernel) != unpacked_length or not is_elf(kernel):
        raise SetupError("the kernel's payload does not unpack to what its header says")
    return kernel


def release(image: bytes) -> str:
    """The kernel's release (`uname -r`), from a bzImage's header or from a plain kernel's banner.

    Raises:
        SetupError: it does not say.
    """
    if is_bzimage(image):
        (pointer,) = struct.unpack_from("<H", image, _VERSION_POINTER_AT)
        text = image[pointer + _VERSION_BASE :][:128].split(b"\0")[0].split(b" ")[0]
        if pointer and text:
            return text.decode("ascii", "replace")
    elif match := _BANNER.search(image):
        return match[1].decode("ascii", "replace")
    raise SetupError("the kernel does not say its release")
