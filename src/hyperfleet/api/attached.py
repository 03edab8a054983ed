"""A machine's data disks, as they stand in bodies."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from hyperfleet.api.names import Name
from hyperfleet.machine import MachineDisk

_MOST_DISKS = 8
# What the guest itself is made of.
_TAKEN = ("/", "/dev", "/proc", "/sys", "/run")

DISKS = (
    f"a list of at most {_MOST_DISKS} objects with disk (the name of a data disk) and path (a"
    " folder in the machine where it is mounted, which begins with /), neither twice"
)


def _place(path: str) -> str:
    plain = posixpath.normpath(path)
    inside = plain.split("/")[1] if plain.count("/") else ""
    if "\0" in path or ".." in path.split("/") or plain == "/" or f"/{inside}" in _TAKEN:
        raise ValueError
    path.encode()
    # POSIX has two slashes at the beginning mean something of their own.
    return f"/{plain.lstrip('/')}"


class MachineDiskIn(BaseModel):
    """A data disk, and where it is mounted."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    disk: Name
    path: Annotated[
        str, Field(min_length=2, max_length=1024, pattern="^/[^\\x00]*$"), AfterValidator(_place)
    ]


def _unlike(disks: list[MachineDiskIn]) -> list[MachineDiskIn]:
    for words in ([disk.disk for disk in disks], [disk.path for disk in disks]):
        if len(set(words)) != len(words):
            raise ValueError
    return disks


DisksIn = Annotated[list[MachineDiskIn], Field(max_length=_MOST_DISKS), AfterValidator(_unlike)]


class MachineDiskOut(BaseModel):
    disk: str
    path: str


def disks_of(given: Sequence[MachineDiskIn]) -> tuple[MachineDisk, ...]:
    """What was asked for, outer folders before what is in them."""
    asked = [MachineDisk(disk=disk.disk, path=disk.path) for disk in given]
    return tuple(sorted(asked, key=lambda disk: disk.path.count("/")))


def disks_out(disks: Sequence[MachineDisk]) -> list[MachineDiskOut]:
    """As they are shown."""
    return [MachineDiskOut(disk=disk.disk, path=disk.path) for disk in disks]
