"""Chooses the kernel modules that a machine needs before it has its disk, in load order."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from hyperfleet.errors import SetupError
from hyperfleet.images.compression import unpack

# Bus, card, disk and control channel of a machine.
NEEDED = ("virtio_mmio", "virtio_net", "virtio_blk", "virtio_console")
# Nice to have: whether a listening socket is IPv6-only, and random numbers from the host.
WANTED = ("inet_diag", "tcp_diag", "virtio_rng")

_FILE = re.compile(r"(?P<name>[\w-]+)\.ko(?P<packed>\.(?:xz|zst|gz))?\Z")
# In a module's .modinfo section: NUL-terminated `key=value` (linux/include/linux/moduleinfo).
_DEPENDS = re.compile(rb"\0depends=([\w,-]*)\0")


class Module(msgspec.Struct, frozen=True, kw_only=True):
    """A module: its name with `_` for `-`, its ELF file unpacked."""

    name: str
    data: bytes


def choose(tree: Path) -> list[Module]:
    """The modules of `tree` (`lib/modules/RELEASE`) for the initramfs, in load order.

    What is built into the kernel is left out.

    Raises:
        SetupError: one that is needed is neither there nor built in.
    """
    files = {_name(match["name"]): path for path, match in _module_files(tree)}
    built_in = _built_in(tree)
    chosen: dict[str, Module] = {}
    for name in NEEDED:
        _add(name, files, built_in, chosen)
    for name in WANTED:
        if name in files:
            _add(name, files, built_in, chosen)
    return list(chosen.values())


def _add(
    name: str, files: dict[str, Path], built_in: frozenset[str], chosen: dict[str, Module]
) -> None:
    """Adds a module after all that it depends on."""
    if name in chosen or name in built_in:
        return
    if name not in files:
        raise SetupError(f"the kernel has no {name}, neither built in nor as a module")
    data = files[name].read_bytes()
    if files[name].suffix != ".ko":
        data = unpack(data)
    depends = _DEPENDS.search(data)
    for other in depends[1].decode().split(",") if depends else ():
        if other:
            _add(_name(other), files, built_in, chosen)
    chosen[name] = Module(name=name, data=data)


def _module_files(tree: Path) -> list[tuple[Path, re.Match[str]]]:
    return [
        (path, match)
        for path in sorted(tree.rglob("*.ko*"))
        if (match := _FILE.match(path.name)) is not None
    ]


def _built_in(tree: Path) -> frozenset[str]:
    try:
        lines = (tree / "modules.builtin").read_text().splitlines()
    except FileNotFoundError:
        return frozenset()
    return frozenset(_name(Path(line).stem) for line in lines)


def _name(file_name: str) -> str:
    return file_name.replace("-", "_")
