"""What may be asked in a query, strict in names and ranges.

A field's `description` completes the sentence "… must be", as in `requests`.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from hyperfleet.api.requests import no_nul
from hyperfleet.lifecycle import Status

# More lines or machines than there can be.
_MOST = 1_000_000_000


class Query(BaseModel):
    """Query parameters: text that must look like what it stands for."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _whole_number(text: Any) -> Any:
    """Only plain digits: `int()` takes spaces, underscores, signs and other alphabets too."""
    if isinstance(text, str):
        if not (text.isascii() and text.isdigit() and len(text) <= 18):  # noqa: PLR2004
            raise ValueError
        return int(text)
    return text


def _decimal(text: Any) -> Any:
    if isinstance(text, str):
        whole, _, part = text.partition(".")
        digits = whole + (part or "0")
        if not (digits.isascii() and digits.isdigit() and whole and len(text) <= 18):  # noqa: PLR2004
            raise ValueError
        return float(text)
    return text


def _status(text: Any) -> Any:
    return Status(text) if isinstance(text, str) else text


def _boolean(text: Any) -> Any:
    if isinstance(text, str):
        if text not in ("true", "false"):
            raise ValueError
        return text == "true"
    return text


class ListMachines(Query):
    """Which machines to list."""

    status: Annotated[Status, BeforeValidator(_status)] | None = Field(
        default=None, description=f"one of {', '.join(Status)}"
    )
    label: list[Annotated[str, Field(pattern="^[^=]")]] = Field(
        default=[], description="key or key=value; several must all fit"
    )
    limit: Annotated[int, BeforeValidator(_whole_number)] = Field(
        default=50, ge=1, le=500, description="a whole number from 1 to 500"
    )
    offset: Annotated[int, BeforeValidator(_whole_number)] = Field(
        default=0, ge=0, le=_MOST, description=f"a whole number from 0 to {_MOST}"
    )


class DeleteMachine(Query):
    """How to delete."""

    force: Annotated[bool, BeforeValidator(_boolean)] = Field(
        default=False, description="true or false; true stops the machine first"
    )


class WaitForMachine(Query):
    """What to wait for."""

    status: Annotated[Status, BeforeValidator(_status)] = Field(
        description=f"one of {', '.join(Status)}"
    )
    timeout: Annotated[float, BeforeValidator(_decimal)] = Field(
        default=30.0, ge=1, le=300, description="a number of seconds from 1 to 300"
    )


class ReadLogs(Query):
    """How much of the console."""

    tail: Annotated[int, BeforeValidator(_whole_number), Field(ge=1, le=_MOST)] | None = Field(
        default=None, description=f"a whole number of lines from 1 to {_MOST}"
    )
    follow: Annotated[bool, BeforeValidator(_boolean)] = Field(
        default=False,
        description="true or false; with true the answer goes on with what is written, until the "
        "machine is deleted",
    )


_PATH = "the path of a file or folder in the machine, which begins with /"
FilePath = Annotated[
    str,
    Field(min_length=1, max_length=4095, pattern="^/[^\\x00]*$"),
    AfterValidator(no_nul),
]


class ReadFile(Query):
    """What to read, and how."""

    path: FilePath = Field(description=_PATH)
    archive: Annotated[bool, BeforeValidator(_boolean)] = Field(
        default=False, description="true or false; true gives a folder with all in it as a tar"
    )


class WriteFile(Query):
    """What to write."""

    path: FilePath = Field(description=_PATH)
    archive: Annotated[bool, BeforeValidator(_boolean)] = Field(
        default=False,
        description="true or false; true: the body is a tar, which is unpacked into that folder",
    )
    mode: Annotated[str, Field(pattern="^[0-7]{3,4}$")] | None = Field(
        default=None, description="permission bits in octal, three or four digits, such as 0755"
    )
    owner: Annotated[str, Field(pattern="^[0-9]{1,9}:[0-9]{1,9}$")] | None = Field(
        default=None, description="user and group id, such as 1000:1000"
    )
    parents: Annotated[bool, BeforeValidator(_boolean)] = Field(
        default=False, description="true or false; true makes the folders that lead to it"
    )


class DeleteFile(Query):
    """What to delete."""

    path: FilePath = Field(description=_PATH)
    recursive: Annotated[bool, BeforeValidator(_boolean)] = Field(
        default=False, description="true or false; true deletes a folder with all that is in it"
    )


class FollowEvents(Query):
    """Which events, and after which."""

    machine: Annotated[str, Field(min_length=1, max_length=100)] | None = Field(
        default=None, description="a machine's id or name, whose events are told alone"
    )
    after: Annotated[str, Field(pattern="^[0-9a-f]{8}-[0-9]{1,18}$")] | None = Field(
        default=None,
        description="the id of an event, after which the first one comes; as the header "
        "Last-Event-ID, which counts more",
    )
