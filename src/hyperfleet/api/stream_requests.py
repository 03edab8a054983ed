"""What the first message of a WebSocket may be: a process whose streams it carries."""

from __future__ import annotations

from pydantic import Field

from hyperfleet.api.names import Name
from hyperfleet.api.requests import Body, Process

MOST_CHARACTERS = 1000
_CHARACTERS = f"a whole number from 1 to {MOST_CHARACTERS}"
_LONGEST_STREAM_S = 30 * 24 * 3600
_NAME = "a DNS label of lower-case letters, digits and hyphens"


class Terminal(Body):
    """The size of a terminal, in characters."""

    rows: int = Field(default=24, ge=1, le=MOST_CHARACTERS, description=_CHARACTERS)
    columns: int = Field(default=80, ge=1, le=MOST_CHARACTERS, description=_CHARACTERS)


class StreamExec(Process):
    """A process to run; with a name it is kept when the connection ends."""

    timeout: float | None = Field(
        default=None,
        ge=0.1,
        le=_LONGEST_STREAM_S,
        description=f"a number of seconds from 0.1 to {_LONGEST_STREAM_S}, or null for no limit",
    )
    stdin: bool = Field(default=True, description="true or false: whether input follows")
    terminal: Terminal | None = Field(
        default=None, description=f"an object with rows and columns, each {_CHARACTERS}"
    )
    name: Name | None = Field(default=None, description=_NAME)


class StreamAttach(Body):
    """A process to go on with."""

    attach: Name = Field(description=_NAME)
