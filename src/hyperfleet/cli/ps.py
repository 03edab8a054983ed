"""`hyperfleet ps` and `hyperfleet kill`: processes in a machine that have a name."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from typing import Annotated

import typer

from hyperfleet.cli.arguments import AsJson, Machine
from hyperfleet.cli.connect import connect
from hyperfleet.cli.output import say, say_json, say_table, span
from hyperfleet.client import Process, to_json


def ps(machine: Machine, *, as_json: AsJson = False) -> None:
    """List the processes of a machine that have a name: those that run, and unheard ends."""
    with connect() as client:
        processes = client.list_processes(machine)
    if as_json:
        say_json({"processes": to_json(processes)})
        return
    now = datetime.now(UTC)
    say_table(
        ("NAME", "STATE", "SINCE", "UNSEEN", "LOST", "COMMAND"),
        [
            (
                process.name,
                _state(process),
                span(now - process.since),
                str(process.untaken),
                str(process.dropped),
                _line(process.argv),
            )
            for process in processes
        ],
    )


def kill(
    machine: Machine,
    name: Annotated[str, typer.Argument(metavar="NAME", help="As given to exec; see ps.")],
) -> None:
    """Kill a process that has a name, with all that it started; the name is free."""
    with connect() as client:
        client.kill_process(machine, name)
    say(f"{name} is gone from {machine}.")


def _state(process: Process) -> str:
    if process.exit_code is None:
        return "attached" if process.attached else "runs"
    return f"signal {process.signal}" if process.signal else f"code {process.exit_code}"


def _line(argv: tuple[str, ...]) -> str:
    """As one would type it; no control of a guest's reaches the terminal."""
    line = shlex.join(argv)
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in line
    )
