"""`hyperfleet settings`: every setting, its value, and where that came from."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from hyperfleet.cli.complaints import complain
from hyperfleet.cli.output import say_json, say_table
from hyperfleet.settings import ENV_FILE, SETTINGS, load, show


def settings(
    as_json: Annotated[bool, typer.Option("--json", help="JSON, for programs.")] = False,
) -> None:
    """Show every setting with its value and where it came from."""
    loaded = load(os.environ, ENV_FILE)
    for warning in loaded.warnings:
        complain(warning)
    rows = [
        (setting.name, show(loaded.settings, setting.name), loaded.origins[setting.name])
        for setting in SETTINGS
    ]
    if as_json:
        say_json([{"name": name, "value": value, "from": origin} for name, value, origin in rows])
        return
    say_table(
        ("NAME", "VALUE", "FROM"), [(name, value or "-", origin) for name, value, origin in rows]
    )
