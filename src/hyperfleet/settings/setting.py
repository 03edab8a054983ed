"""What a row of the table of settings is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from hyperfleet.settings import values as value


class Setting(msgspec.Struct, frozen=True):
    """One row: its name, its default as it would be written (None: unset), and what it is for."""

    name: str
    default: str | None
    parse: Callable[[str], Any]
    may_be: str
    about: str


LIMIT_MS = value.number(1, 86_400_000, "milliseconds")
