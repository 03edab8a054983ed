"""Memory of guests in files without a name (memfd_create(2)).

A template's memory is mapped by each of its clones, privately, and QEMU opens the file for writing
all the same. Sealed, it can be written by none of them, whoever they have become: a clone that was
broken out of reaches no other's memory by it.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from hyperfleet.vmm import shortage

_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL


def create(name: str, size: int) -> int:
    """A descriptor of `size` bytes of nothing. The caller closes it.

    Raises:
        CapacityError: the host has no descriptor left.
    """
    with shortage.told(Path(name)):
        descriptor = os.memfd_create(name[:200], os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(descriptor, size)
    return descriptor


def seal(descriptor: int) -> None:
    """Has nobody write to it, or change its size, from now on.

    Raises:
        OSError: EBUSY where it is mapped for writing.
    """
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)


def of_bytes(name: str, data: bytes) -> int:
    """A descriptor that reads `data` from its beginning. The caller closes it."""
    descriptor = create(name, 0)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(data)
        os.lseek(descriptor, 0, os.SEEK_SET)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def copy(source: int, target: int) -> None:
    """Copies what `source` holds to an empty `target`, holes as holes.

    Raises:
        OSError: no room.
    """
    size = os.fstat(source).st_size
    os.ftruncate(target, size)
    at = 0
    while at < size:
        try:
            begin = os.lseek(source, at, os.SEEK_DATA)
        except OSError:
            # ENXIO: nothing but a hole is left.
            break
        at = os.lseek(source, begin, os.SEEK_HOLE)
        os.lseek(target, begin, os.SEEK_SET)
        while begin < at:
            sent = os.sendfile(target, source, begin, at - begin)
            if sent == 0:
                break
            begin += sent
