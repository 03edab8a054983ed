"""The minimal root disk: a static busybox under all its names, a few MB."""

from __future__ import annotations

import shutil
from pathlib import Path

from hyperfleet.errors import SetupError
from hyperfleet.images import flavour
from hyperfleet.images.disk import MIB, make_disk
from hyperfleet.images.programs import run
from hyperfleet.images.workshop import Inputs, Workshop, digest

_SIZE = 64 * MIB
_VERSION = "2"
# One folder holds every program; the other places where scripts look lead to it.
_LINKS = {"sbin": "bin", "usr/bin": "../bin", "usr/sbin": "../bin", "var/run": "../run"}
_FOLDERS = ("bin", "dev", "etc", "home", "mnt", "proc", "run", "sys", "usr", "var/log", "var/www")
_FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "etc/profile": "export PATH=/usr/local/bin:/bin\n",
    "etc/nsswitch.conf": "hosts: files dns\n",
    "etc/os-release": 'ID=hyperfleet-minimal\nPRETTY_NAME="Hyperfleet minimal (busybox)"\n',
}


class Minimal:
    """Boots in no time and needs no network to be made; what most tests use."""

    name = "minimal"
    about = "a moment"

    def __init__(self) -> None:
        """Finds the host's busybox.

        Raises:
            SetupError: there is none, or it is not a static one.
        """
        found = shutil.which("busybox")
        if found is None:
            raise SetupError("no busybox here: install Debian's busybox-static")
        self._busybox = Path(found)
        # A dynamic program names its loader near its start (ELF's PT_INTERP).
        with self._busybox.open("rb") as file:
            if b"/ld-" in file.read(4096):
                raise SetupError(f"{found} is not static: install Debian's busybox-static")

    @property
    def inputs(self) -> Inputs:
        """Its recipe."""
        return {"busybox": digest(self._busybox), "made by": _VERSION}

    def make(self, workshop: Workshop, disk: Path) -> None:
        """Writes the disk; see `Flavour`."""
        work = workshop.folder("minimal")
        tree = work / "files"
        for name in _FOLDERS:
            (tree / name).mkdir(parents=True)
        (tree / "root").mkdir(mode=0o700)
        for name in ("tmp", "var/tmp"):
            (tree / name).mkdir()
            (tree / name).chmod(0o1777)
        for name, target in _LINKS.items():
            (tree / name).symlink_to(target)
        shutil.copyfile(self._busybox, tree / "bin/busybox")
        (tree / "bin/busybox").chmod(0o755)
        for applet in run([str(self._busybox), "--list"]).decode().split():
            if applet != "busybox":
                (tree / "bin" / applet).symlink_to("busybox")
        for name, text in _FILES.items():
            flavour.write(tree / name, text)
        flavour.first_files(tree)
        make_disk(disk, work=work, size=_SIZE, label="minimal", overlay=tree)
