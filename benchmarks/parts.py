"""What is measured of ours alone, against a bound: figures, not ratios to rivals."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks import large_table, system_calls, two_workers
from benchmarks.figures import Figure
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


PARTS: tuple[Part, ...] = (
    Part("table", "A table of many machines", ("valgrind",), large_table.measure),
    Part("workers", "Two workers", (), two_workers.measure),
    Part("calls", "System calls", ("strace",), system_calls.measure),
)


def measure(parts: tuple[Part, ...], setting: Setting) -> tuple[list[Figure], dict[str, str]]:
    """The figures of these parts, and of those that gave none the reason."""
    figures: list[Figure] = []
    failures: dict[str, str] = {}
    for part in parts:
        began = time.monotonic()
        try:
            _require(part.programs)
            figures += part.measure(setting)
        except RuntimeError as error:
            failures[part.key] = str(error)
            print(f"{part.key}: {error}", file=sys.stderr)
        print(f"{part.key}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    return figures, failures


def _require(programs: tuple[str, ...]) -> None:
    if missing := [program for program in programs if shutil.which(program) is None]:
        msg = f"not here: {', '.join(missing)}; `make bench` installs it"
        raise RuntimeError(msg)
