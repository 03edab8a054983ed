"""How commands speak: tables and plain lines for people, JSON for programs.

Rich is loaded where it is needed: that takes longer than most commands that do without.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from hyperfleet.client import CommandState

_MIB = 1 << 20


def say(line: str) -> None:
    """One line on stdout, as it is."""
    sys.stdout.write(f"{line}\n")


def say_json(value: Any) -> None:
    """Plain data on stdout."""
    say(json.dumps(value, indent=2, ensure_ascii=False))


def say_table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], *, headed: bool = True
) -> None:
    """A table; cells are shown as they are, whatever they hold."""
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, header_style="bold", show_header=headed)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console = Console()
    # Where nobody looks, nothing is cut: a pipe has no width.
    Console(width=None if console.is_terminal else 10_000).print(table)


@contextmanager
def working(what: str) -> Iterator[None]:
    """Says on a terminal what is waited for, while the block lasts."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    with Console(stderr=True).status(Text(what)):
        yield


def span(lasting: timedelta) -> str:
    """A time span in one unit, as a glance needs it: 7s, 12m, 3h, 21d."""
    seconds = max(0, int(lasting.total_seconds()))
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def mib(count: int | None) -> str:
    """So many bytes in MiB, rounded up; None: nobody knows."""
    return "-" if count is None else f"{-(-count // _MIB)} MiB"


def standing(command: CommandState) -> str:
    """How it stands with a machine's command, in words."""
    end = f"signal {command.signal}" if command.signal else f"code {command.exit_code}"
    if command.exit_code is None:
        end = ""
    words = {
        "running": "runs",
        "waiting": f"ended with {end}, to be started again",
        "exited": f"ended with {end}",
    }
    said = words.get(command.state, command.state)
    if command.state == "running" and end:
        said = f"{said}, after an end with {end}"
    return f"{said}; restarts: {command.restarts}" if command.restarts else said


def moment(at: datetime | None) -> str:
    """A time to the second, UTC; a dash for none."""
    return "-" if at is None else at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
