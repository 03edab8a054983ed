"""The program nft: transactions in, words of failure out.

The program and not netlink: its language is what an administrator reads in `nft list ruleset`, and
it is kept in step with the kernel by those who make both.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess

from hyperfleet.errors import GuestError

# Where only root's PATH looks.
_SBIN = "/usr/sbin:/sbin"
_TIMEOUT_S = 60.0
_LONGEST_WORDS = 300


def program() -> str | None:
    """Where nft is; None: it is not installed."""
    return shutil.which("nft") or shutil.which("nft", path=_SBIN)


async def apply(transaction: str) -> None:
    """Does all of it or nothing.

    Raises:
        GuestError: the kernel would not, or the program is missing.
    """
    await asyncio.to_thread(_run, ("-f", "-"), transaction)


async def has_table(family: str, name: str) -> bool:
    """Whether there is that table.

    Raises:
        GuestError: it can't be asked.
    """
    words = await asyncio.to_thread(_run, ("list", "tables", family), "")
    return f"table {family} {name}" in words.splitlines()


def _run(arguments: tuple[str, ...], text: str) -> str:
    nft = program()
    if nft is None:
        raise GuestError("nft is not installed (Debian: nftables)")
    try:
        done = subprocess.run(
            [nft, *arguments],
            input=text.encode(),
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise GuestError(f"nft: {error}") from error
    if done.returncode != 0:
        words = " ".join(done.stderr.decode(errors="replace").split())
        raise GuestError(f"nft: {words[:_LONGEST_WORDS]}")
    return done.stdout.decode(errors="replace")
