"""What the root disks have in common: their interface, their names, and their first files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from hyperfleet.images.workshop import Inputs, Workshop

# Best first: `rootfs.ext4`, the disk of a machine that names none, is the first that is there.
FLAVOURS = ("alpine", "debian", "minimal")
DEFAULT_DISK = "rootfs.ext4"

_CA_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
# The agent writes the machine's own name and resolver at each start; until then, no name of the
# host that made the disk, and the resolver of QEMU's user network.
_FILES = {
    "etc/hostname": "machine\n",
    "etc/hosts": "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n",
    "etc/resolv.conf": "nameserver 10.0.2.3\n",
}


class Flavour(Protocol):
    """A root disk that can be made here, as far as one can tell before."""

    @property
    def name(self) -> str:
        """`alpine`, `debian` or `minimal`."""

    @property
    def about(self) -> str:
        """For people, while they wait."""

    @property
    def inputs(self) -> Inputs:
        """Its recipe."""

    def make(self, workshop: Workshop, disk: Path) -> None:
        """Writes the disk to the new file `disk`.

        Raises:
            SetupError: it can't be made; says why.
        """


def disk_name(flavour: str) -> str:
    """The name of a flavour's disk in the home."""
    return f"{flavour}-rootfs.ext4"


def first_files(folder: Path, *, ca_bundle: Path = _CA_BUNDLE) -> None:
    """Writes what every disk gets over its own files: name look-ups, and whom this host trusts.

    The host's certificates are the machine's too, so that https works behind the same network.
    """
    for name, text in _FILES.items():
        write(folder / name, text)
    if ca_bundle.is_file():
        write(folder / "etc/ssl/certs/ca-certificates.crt", ca_bundle.read_text())


@contextmanager
def public_modes() -> Iterator[int]:
    """Gives what is made for a disk the usual modes, 0755 and 0644, whatever this process's umask.

    The servers in a machine are not root, and must read what lies there. Yields the umask that was
    set before, and sets it again at the end.
    """
    before = os.umask(0o022)
    try:
        yield before
    finally:
        os.umask(before)


def write(path: Path, text: str) -> None:
    """Writes a file for the disk, with the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o644)
