"""`hyperfleet setup`: makes what machines boot from, each artefact once for each recipe."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from hyperfleet import binaries, failpoints
from hyperfleet.errors import HyperfleetError, SetupError, ValidationError
from hyperfleet.images import boot_files
from hyperfleet.images.alpine import Alpine
from hyperfleet.images.debian import Debian, included
from hyperfleet.images.flavour import (
    DEFAULT_DISK,
    FLAVOURS,
    Flavour,
    disk_name,
    public_modes,
)
from hyperfleet.images.minimal import Minimal
from hyperfleet.images.progress import Progress
from hyperfleet.images.workshop import Workshop, open_workshop

ALL = "all"

OK = 0
FAILED = 1
INTERRUPTED = 130

# A server that nobody insisted on is not waited for long, seconds.
_UNASKED_TIMEOUT = 3.0


def setup(
    *,
    home: Path,
    flavours: Sequence[str] = (),
    include: Sequence[str] | None = None,
    kernel: Path | None = None,
    alpine_tarball: Path | None = None,
    force: bool = False,
    prune: bool = False,
    console: Console | None = None,
) -> int:
    """Makes kernel, initramfs and root disks in `home` and says so on `console`; an exit code.

    `flavours`: root disks to make; none, or `all`: those that can be had here, and what can't is
    said and left out. `include`: packages of the Debian disk; None keeps those it has. `kernel`:
    one of the user's, in place of Debian's. `force` makes everything again. `prune` removes root
    disks that others took the place of and on which no machine and no snapshot stands.

    0: all that was asked for is there. 1: something is not, each with its reason. 130: Ctrl-C;
    nothing is left half made.
    """
    progress = Progress(console or Console())
    try:
        failpoints.arm_from(os.environ)
        _check(flavours)
        with open_workshop(home) as workshop:
            run = _Run(workshop, progress, force=force)
            run.boot_files(kernel)
            run.disks(flavours, include, alpine_tarball)
            run.default_disk()
            if prune:
                run.prune()
            return FAILED if run.failed else OK
    except KeyboardInterrupt:
        progress.failed("setup", "interrupted; what was being made is not there")
        return INTERRUPTED
    except HyperfleetError as error:
        progress.failed("setup", error.message)
        return FAILED


def _check(flavours: Sequence[str]) -> None:
    for name in flavours:
        if name not in (*FLAVOURS, ALL):
            raise ValidationError(f"--flavour {name}: there are {', '.join(FLAVOURS)}, {ALL}")


class _Run:
    """One set-up: goes on after a failure, with what does not depend on it."""

    def __init__(self, workshop: Workshop, progress: Progress, *, force: bool) -> None:
        self._workshop = workshop
        self._progress = progress
        self._force = force
        self.failed = False

    def boot_files(self, given: Path | None) -> None:
        """The kernel with its modules, then the initramfs with these modules."""
        workshop, progress = self._workshop, self._progress
        try:
            source = boot_files.kernel_source(workshop, given)
            if not self._force and boot_files.kernel_is_made(workshop, source):
                progress.there(boot_files.KERNEL, f"there: {source.title}")
            else:
                with progress.making(boot_files.KERNEL, "a few seconds"):
                    boot_files.make_kernel(workshop, source)
        except SetupError as error:
            self._fail(boot_files.KERNEL, error)
            return
        try:
            agent = binaries.guest_agent()
            inputs = boot_files.initramfs_inputs(workshop, agent)
            if not self._force and workshop.is_made(boot_files.INITRAMFS, inputs):
                progress.there(boot_files.INITRAMFS, "there")
            else:
                with progress.making(boot_files.INITRAMFS, "a moment"):
                    boot_files.make_initramfs(workshop, agent)
        except SetupError as error:
            self._fail(boot_files.INITRAMFS, error)

    def disks(
        self,
        flavours: Sequence[str],
        include: Sequence[str] | None,
        alpine_tarball: Path | None,
    ) -> None:
        """Each root disk that was asked for."""
        asked = set(flavours) - {ALL}
        if alpine_tarball is not None:
            asked.add(Alpine.name)
        if include:
            asked.add(Debian.name)
        everything = not flavours or ALL in flavours
        for name in FLAVOURS if everything else filter(asked.__contains__, FLAVOURS):
            try:
                self._disk(self._flavour(name, include, alpine_tarball, asked=name in asked))
            except SetupError as error:
                if name in asked:
                    self._fail(disk_name(name), error)
                elif not (self._workshop.home / disk_name(name)).exists():
                    self._progress.missing(disk_name(name), error.message)
                else:
                    self._progress.missing(disk_name(name), f"{error.message}; the old one stays")

    def default_disk(self) -> None:
        """Points `rootfs.ext4` at the best disk that is there, unless the user put a file there."""
        home = self._workshop.home
        default = home / DEFAULT_DISK
        there = [disk_name(name) for name in FLAVOURS if (home / disk_name(name)).exists()]
        if default.exists() and not default.is_symlink():
            self._progress.there(DEFAULT_DISK, "there: a file of yours")
        elif there:
            self._workshop.link(DEFAULT_DISK, there[0])
            self._progress.there(DEFAULT_DISK, f"is {there[0]}")
        else:
            self._fail(DEFAULT_DISK, SetupError("no root disk could be made"))

    def prune(self) -> None:
        """Removes what nobody needs any more."""
        for version in self._workshop.unused_versions():
            size = version.stat().st_blocks * 512 >> 20
            version.unlink()
            self._progress.note(version.name, f"removed, nobody stood on it: {size} MiB")

    def _flavour(
        self,
        name: str,
        include: Sequence[str] | None,
        alpine_tarball: Path | None,
        *,
        asked: bool,
    ) -> Flavour:
        if name == Alpine.name:
            return Alpine(alpine_tarball) if asked else Alpine(timeout=_UNASKED_TIMEOUT)
        if name == Debian.name:
            if include is None:
                include = included(self._workshop.recipe(disk_name(name)))
            return Debian(include)
        return Minimal()

    def _disk(self, flavour: Flavour) -> None:
        name = disk_name(flavour.name)
        if not self._force and self._workshop.is_made(name, flavour.inputs):
            self._progress.there(name, "there")
            return
        made = self._workshop.scratch / name
        with self._progress.making(name, flavour.about):
            with public_modes() as umask:
                flavour.make(self._workshop, made)
            # The disk itself is the user's file, and may be private.
            made.chmod(0o666 & ~umask)
            before = self._workshop.publish_version(made, name, flavour.inputs)
        if before is not None:
            self._progress.note(name, f"{before} stays for the machines that were made on it")

    def _fail(self, name: str, error: SetupError) -> None:
        self.failed = True
        self._progress.failed(name, error.message)
