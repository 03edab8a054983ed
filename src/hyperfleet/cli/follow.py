"""`hyperfleet logs` and `hyperfleet events`: what machines say, and what happens to them."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Annotated

import msgspec
import typer

from hyperfleet.cli.arguments import Machine, machine_names
from hyperfleet.cli.complaints import complain
from hyperfleet.cli.connect import connect
from hyperfleet.cli.output import say, standing
from hyperfleet.client import Event, Missed, to_json
from hyperfleet.controls import without_controls


def logs(
    machine: Machine,
    *,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what is written.")
    ] = False,
    tail: Annotated[
        int | None, typer.Option("--tail", "-n", help="Only the last lines.", min=1)
    ] = None,
) -> None:
    """Show a machine's console: what its kernel and programs wrote to it.

    On a terminal without control characters, which a machine could play tricks with.
    """
    with connect() as client:
        if follow:
            _write(client.follow_logs(machine, tail=tail))
        else:
            _write([client.machine_logs(machine, tail=tail)])


def events(
    machine: Annotated[
        str | None,
        typer.Argument(metavar="[MACHINE]", help="Only its events.", autocompletion=machine_names),
    ] = None,
    *,
    after: Annotated[
        str | None, typer.Option(help="The id of an event: begin with what came after it.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON, one event a line.")] = False,
) -> None:
    """Show what happens to machines, as it happens."""
    with connect() as client:
        for event in client.follow_events(machine=machine, after=after):
            if isinstance(event, Missed):
                complain("some events were missed: `hyperfleet list` shows how things stand")
            elif as_json:
                say(msgspec.json.encode(to_json(event)).decode())
            else:
                say(_line(event))
            sys.stdout.flush()


def _write(texts: Iterable[str]) -> None:
    shown = sys.stdout.isatty()
    for text in texts:
        sys.stdout.write(without_controls(text, tabs=True) if shown else text)
        sys.stdout.flush()


def _line(event: Event) -> str:
    at = event.at.astimezone().strftime("%H:%M:%S")
    return f"{at}  {event.machine.name:20}  {_what(event)}  ({event.cause})"


def _what(event: Event) -> str:
    match event.type:
        case "status":
            why = f": {_first_line(event.message)}" if event.message else ""
            return f"{event.before} -> {event.status}{why}"
        case "port" if event.port is not None:
            port = event.port
            here = f"a server listens at port {port.port}: {port.url}"
            return here if port.listening else f"nothing listens at port {port.port} any more"
        case "changed":
            return f"changed: {', '.join(event.fields)}"
        case "command" if event.command is not None:
            return f"its command: {standing(event.command)}"
        case "stalled":
            return f"stands still: {_first_line(event.message)}" if event.message else "goes on"
        case _:
            # What a guest did against the protocol, or what a later server tells.
            return _first_line(event.message or event.type)


def _first_line(text: str) -> str:
    return without_controls(text.partition("\n")[0], tabs=True)
