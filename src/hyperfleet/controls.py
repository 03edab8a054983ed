"""Text of a guest's without what would move a terminal's cursor or rename its window."""

from __future__ import annotations

import re

# ANSI escape sequences (ECMA-48: CSI, OSC, two-byte ones), then all other controls but LF.
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_CONTROLS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")
_CONTROLS_BUT_TABS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def without_controls(text: str, *, tabs: bool = False) -> str:
    """The text without escape sequences and controls but line feeds; with `tabs`, but tabs too."""
    return (_CONTROLS_BUT_TABS if tabs else _CONTROLS).sub("", _ESCAPES.sub("", text))
