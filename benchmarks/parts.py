"""What is measured of ours alone, against a bound: figures, not ratios to rivals."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks import access_log, large_table, system_calls, two_workers
from benchmarks.figures import Figure
from benchmarks.progress import Progress
from benchmarks.setting import Setting


@dataclass(frozen=True)
class Part:
    """One part of a run."""

    key: str
    title: str
    programs: tuple[str, ...]
    """What it needs that a host may lack; `make bench` installs it."""
    measure: Callable[[Setting], list[Figure]]
    """Raises RuntimeError where it can't."""
    guess: float
    """Seconds that it takes in a whole run, about."""


PARTS: tuple[Part, ...] = (
    Part("table", "A table of many machines", ("valgrind",), large_table.measure, 80),
    Part("workers", "Two workers", (), two_workers.measure, 40),
    Part("log", "The access log", (), access_log.measure, 35),
    Part("calls", "System calls", ("strace",), system_calls.measure, 5),
)


def measure(
    parts: tuple[Part, ...], setting: Setting, progress: Progress
) -> tuple[list[Figure], dict[str, str]]:
    """The figures of these parts, and of those that gave none the reason."""
    figures: list[Figure] = []
    failures: dict[str, str] = {}
    for part in parts:
        try:
            _require(part.programs)
            figures += part.measure(setting)
        except RuntimeError as error:
            failures[part.key] = str(error)
            print(f"{part.key}: {error}", file=sys.stderr)
        progress.done(part.key)
    return figures, failures


def _require(programs: tuple[str, ...]) -> None:
    if missing := [program for program in programs if shutil.which(program) is None]:
        msg = f"not here: {', '.join(missing)}; `make bench` installs it"
        raise RuntimeError(msg)
