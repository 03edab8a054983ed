"""Wheels of the checkout: as `make wheel` makes one, and the same as another version."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

from hyperfleet import __version__, binaries
from hyperfleet.errors import SetupError
from support.need import Need
from support.page import CHECKOUT

_PROGRAMS = (binaries.PROXY, binaries.GUEST_AGENT, binaries.GATE, binaries.CONFINE)


def built(need: Need, folder: Path) -> Path:
    """The wheel, in `folder`."""
    for program in _PROGRAMS:
        try:
            binaries.find(program)
        except SetupError as error:
            need.that(False, error.message)
    # fmt: off
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation",
               "--outdir", str(folder), str(CHECKOUT)]
    # fmt: on
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr or done.stdout
    (wheel,) = folder.glob("*.whl")
    return wheel


def as_version(wheel: Path, version: str) -> Path:
    """A copy beside it that says it is another version, as the package says too."""
    made = wheel.with_name(wheel.name.replace(f"-{__version__}-", f"-{version}-"))
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(made, "w") as new:
        for info in old.infolist():
            data = old.read(info)
            if info.filename == "hyperfleet/__init__.py":
                data = _renamed(data, f'"{__version__}"', f'"{version}"')
            elif info.filename.endswith(".dist-info/METADATA"):
                data = _renamed(data, f"\nVersion: {__version__}\n", f"\nVersion: {version}\n")
            elif info.filename.endswith(".dist-info/RECORD"):
                # Without sums, which may be left out (PEP 376).
                names = [line.split(",")[0] for line in data.decode().splitlines()]
                data = "".join(f"{_moved(name, version)},,\n" for name in names).encode()
            info.filename = _moved(info.filename, version)
            new.writestr(info, data)
    return made


def dependencies(folder: Path) -> Path:
    """A folder for PYTHONPATH with all that this environment has, but Hyperfleet.

    What the wheel depends on is what requirements.txt pins; to fetch it again would need the
    internet.
    """
    import pytest  # noqa: PLC0415 - it lies where the others do

    for entry in Path(pytest.__file__).parents[1].iterdir():
        if not entry.name.startswith(("hyperfleet", "_hyperfleet")):
            (folder / entry.name).symlink_to(entry)
    return folder


def _moved(name: str, version: str) -> str:
    return name.replace(f"hyperfleet-{__version__}.dist-info", f"hyperfleet-{version}.dist-info")


def _renamed(data: bytes, old: str, new: str) -> bytes:
    assert data.count(old.encode()) == 1
    return data.replace(old.encode(), new.encode())
