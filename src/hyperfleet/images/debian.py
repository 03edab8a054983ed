"""The Debian root disk: the smallest Debian that has apt, and the packages that were asked for."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from hyperfleet.errors import SetupError, ValidationError
from hyperfleet.images import apt, flavour
from hyperfleet.images.disk import MIB, make_disk
from hyperfleet.images.programs import run
from hyperfleet.images.workshop import Inputs, Workshop

_SIZE = 2048 * MIB
_VERSION = "4"
# What packages made that must be each machine's own: machines of one disk would share their keys.
_FORGET = 'rm -f -- "$1"/etc/ssh/ssh_host_*'
# What a host that is no Debian gets.
_DEFAULT_RELEASE = "bookworm"
# Always there, so that https works in the machine.
_ALWAYS = ("ca-certificates",)
# Debian policy, 5.6.1.
_PACKAGE_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+\Z")
# What mmdebstrap says where it has no way to act as root, and what gives it one.
_NO_MODE = "unable to pick chroot mode"
_NO_MODE_HELP = (
    "for an ordinary user it needs newuidmap (Debian's uidmap), the user's lines in /etc/subuid"
    " and /etc/subgid, and user namespaces that are allowed; or run it as root"
)


class Debian:
    """Debian by mmdebstrap, with the host's apt sources so that apt works inside."""

    name = "debian"
    about = "about a minute"

    def __init__(self, include: Sequence[str]) -> None:
        """`include`: packages besides the smallest set.

        Raises:
            SetupError: mmdebstrap is missing.
            ValidationError: `include` holds what can't be a package's name.
        """
        for name in include:
            if not _PACKAGE_NAME.match(name):
                raise ValidationError(f"--include: {name!r} is no package's name")
        if shutil.which("mmdebstrap") is None:
            raise SetupError("mmdebstrap is not installed: install Debian's mmdebstrap")
        self._include = sorted({*_ALWAYS, *include})
        self._release = apt.codename() or _DEFAULT_RELEASE
        self._sources = apt.debian_sources(self._release)
        self._settings = apt.network_settings()

    @property
    def inputs(self) -> Inputs:
        """Its recipe."""
        return {
            "release": self._release,
            "include": self._include,
            # Hashed: an address in it may hold a password.
            "sources": sha256((self._sources or "").encode()).hexdigest(),
            "settings": self._settings,
            "made by": _VERSION,
        }

    def make(self, workshop: Workshop, disk: Path) -> None:
        """Writes the disk; see `Flavour`."""
        work = workshop.folder("debian")
        tarball = work / "debian.tar"
        sources: list[str] = []
        if self._sources is not None:
            listed = work / "hyperfleet.sources"
            listed.write_text(self._sources)
            sources = [str(listed)]
        try:
            run(
                [
                    *["mmdebstrap", "--quiet", "--variant=minbase"],
                    f"--include={','.join(self._include)}",
                    *(f"--aptopt={line}" for line in self._settings),
                    f"--customize-hook={_FORGET}",
                    *[self._release, str(tarball), *sources],
                ]
            )
        except SetupError as error:
            if _NO_MODE in error.message:
                raise SetupError(f"{error.message}; {_NO_MODE_HELP}") from error
            raise
        tree = work / "files"
        tree.mkdir()
        flavour.first_files(tree)
        _documents(tree)
        make_disk(disk, work=work, size=_SIZE, label="debian", overlay=tree, base=tarball)


def _documents(tree: Path) -> None:
    """Alpine's folder of web pages leads to Debian's: one example serves for both."""
    link = tree / "var/www/localhost/htdocs"
    link.parent.mkdir(parents=True)
    link.symlink_to("../html")
    (tree / "var/www/html").mkdir()


def included(recipe: dict[str, object] | None) -> tuple[str, ...]:
    """The packages that a disk's recipe names; none where there is no disk yet."""
    include = recipe.get("include") if recipe else None
    return tuple(map(str, include)) if isinstance(include, list) else ()
