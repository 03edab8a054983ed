"""What a command says that could not do what was asked. Stands on nothing of the client."""

from __future__ import annotations

import sys

from hyperfleet.errors import HyperfleetError, SettingsError

FAILED, USAGE = 1, 2


def complain(line: str) -> None:
    """One line on stderr, named as ours."""
    sys.stderr.write(f"hyperfleet: {line}\n")


def give_up(error: HyperfleetError) -> int:
    """Says why; the exit code. Of settings each that is wrong has a line."""
    if isinstance(error, SettingsError):
        for line in error.message.splitlines():
            complain(line)
        return USAGE
    complain(error.message)
    return FAILED
