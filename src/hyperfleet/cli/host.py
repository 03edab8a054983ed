"""Commands that work on this host itself, not through a server: serve, setup, doctor."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from hyperfleet.cli import serving
from hyperfleet.settings import ENV_FILE, load

# What these commands stand on is imported where it runs: `hyperfleet keys` need not wait for it.


def serve() -> None:
    """Run the control plane: the API, the machines, and the proxy beside it."""
    raise typer.Exit(serving.serve())


def setup(
    *,
    flavour: Annotated[
        list[str] | None,
        typer.Option(help="Root disk to make: minimal, debian, alpine or all; may be repeated."),
    ] = None,
    include: Annotated[
        str | None, typer.Option(help="Packages of the Debian disk, separated by commas.")
    ] = None,
    kernel: Annotated[
        Path | None, typer.Option(help="A kernel of your own instead of Debian's.")
    ] = None,
    alpine_tarball: Annotated[
        Path | None, typer.Option(help="Alpine's minirootfs, already downloaded.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Make everything again.")] = False,
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove former root disks that no machine stands on.")
    ] = False,
) -> None:
    """Make what machines boot from: kernel, initramfs, root disks."""
    from hyperfleet.images.command import setup as make  # noqa: PLC0415

    packages = None
    if include is not None:
        packages = [name.strip() for name in include.split(",") if name.strip()]
    raise typer.Exit(
        make(
            home=load(os.environ, ENV_FILE).settings.hyperfleet_home,
            flavours=flavour or (),
            include=packages,
            kernel=kernel,
            alpine_tarball=alpine_tarball,
            force=force,
            prune=prune,
        )
    )


def doctor() -> None:
    """Check what this host has and lacks for running machines."""
    from rich.console import Console  # noqa: PLC0415

    from hyperfleet import doctor as physician  # noqa: PLC0415

    checks = physician.run(load(os.environ, ENV_FILE).settings)
    raise typer.Exit(physician.report(checks, Console()))
