"""`hyperfleet keys`: create, list, revoke."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from hyperfleet.cli.connect import connect
from hyperfleet.cli.output import moment, say, say_json, say_table
from hyperfleet.client import to_json

app = typer.Typer(no_args_is_help=True, help="Keys of the API.")

AsJson = Annotated[bool, typer.Option("--json", help="JSON, for programs.")]

_MACHINES = ["machines:read", "machines:write", "machines:exec"]
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


def expiry(text: str, now: datetime) -> datetime:
    """`90m`, `12h` or `30d` from `now`, or a time in ISO 8601 (UTC where it has no zone).

    Raises:
        typer.BadParameter: it is neither.
    """
    if found := re.fullmatch(r"([1-9][0-9]{0,5})([mhd])", text):
        return now + timedelta(**{_UNITS[found[2]]: int(found[1])})
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(
            "must be a time such as 2030-01-31, or a span such as 90m, 12h or 30d"
        ) from error
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at


@app.command("create")
def create(
    name: Annotated[str, typer.Argument(help="What it is for.")],
    scope: Annotated[
        list[str] | None,
        typer.Option(
            help="machines:read, machines:write, machines:exec or *; may be repeated. "
            "Default: the three of machines, not *, which also manages keys."
        ),
    ] = None,
    expires: Annotated[
        str | None, typer.Option(help="When it ends: 90m, 12h, 30d, or 2030-01-31T12:00:00Z.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a key; it is shown this once."""
    expires_at = None if expires is None else expiry(expires, datetime.now(UTC))
    with connect() as client:
        made = client.create_key(name, scopes=scope or _MACHINES, expires_at=expires_at)
    if as_json:
        say_json(to_json(made))
        return
    say(made.key)
    say(f"Key {made.id} ({', '.join(made.scopes)}); it is not shown again.")


@app.command("list")
def list_keys(as_json: AsJson = False) -> None:
    """List the keys that are not revoked."""
    with connect() as client:
        keys = client.list_keys()
    if as_json:
        say_json({"keys": to_json(keys)})
        return
    say_table(
        ("ID", "NAME", "KEY", "SCOPES", "CREATED", "EXPIRES", "LAST USED"),
        [
            (
                key.id,
                key.name,
                f"{key.prefix}…",
                ", ".join(key.scopes),
                moment(key.created_at),
                moment(key.expires_at),
                moment(key.last_used_at),
            )
            for key in keys
        ],
    )


@app.command("revoke")
def revoke(key_id: Annotated[str, typer.Argument(metavar="ID", help="As listed.")]) -> None:
    """End a key, at once and for good."""
    with connect() as client:
        client.revoke_key(key_id)
    say(f"Key {key_id} is revoked.")
