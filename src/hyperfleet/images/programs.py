"""Runs the host's programs that set-up stands on."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from hyperfleet.errors import SetupError

# How many of a failed program's last lines go into the error, and how much of each.
_LINES = 4
_LINE_LENGTH = 300


def run(command: Sequence[str], *, cwd: Path | None = None) -> bytes:
    """Runs a program to its end; its standard output.

    Raises:
        SetupError: it is missing or failed; the message holds its last words.
    """
    # Debian keeps mke2fs where an ordinary user's PATH does not look.
    environment = {**os.environ, "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"}
    environment["LC_ALL"] = "C.UTF-8"
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            env=environment,
            cwd=cwd,
        )
    except FileNotFoundError:
        raise SetupError(
            f"{command[0]} is not installed: run `scripts/bootstrap system`, or install it"
        ) from None
    if done.returncode != 0:
        output = (done.stderr or done.stdout).decode(errors="replace")
        words = [line[:_LINE_LENGTH] for line in output.strip().splitlines()[-_LINES:]]
        raise SetupError(f"{command[0]} failed ({done.returncode}): {' | '.join(words)}")
    return done.stdout
