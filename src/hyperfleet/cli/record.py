"""`hyperfleet backup` and `hyperfleet restore`: on this host, not through a server."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from hyperfleet.cli.output import say
from hyperfleet.settings import ENV_FILE, load

# What these stand on is imported where it runs: `hyperfleet keys` need not wait for it.


def backup(
    file: Annotated[Path, typer.Argument(help="Where to; made with mode 0600.")],
    force: Annotated[bool, typer.Option("--force", help="Overwrite it if it is there.")] = False,
) -> None:
    """Copy the record of machines and keys into a file, while the server runs or not."""
    from hyperfleet.server import record  # noqa: PLC0415

    record.back_up(load(os.environ, ENV_FILE).settings, file, force=force)
    say(f"The record is in {file}. Disks of machines are not part of it.")


def restore(
    file: Annotated[Path, typer.Argument(help="What `hyperfleet backup` made.")],
) -> None:
    """Put a copy of the record in the place of the one that is there; no server may run."""
    from hyperfleet.server import record  # noqa: PLC0415

    done = record.restore(load(os.environ, ENV_FILE).settings, file)
    say(f"Restored: {done.machines} machines.")
    if done.aside is not None:
        say(f"The record from before is in {done.aside}.")
    for path in done.strangers:
        say(f"{path} belongs to a machine that this record does not know; it was left alone.")
    for name in done.diskless:
        say(f"The disk of {name} is gone; it would start with a new one.")
