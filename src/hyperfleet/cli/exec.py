"""`hyperfleet exec`, `shell` and `attach`: a process in a machine, as if it ran here."""

from __future__ import annotations

import contextlib
import os
import sys
import termios
import threading
import tty
from collections.abc import Iterator
from typing import Annotated

import typer

from hyperfleet import client as sdk
from hyperfleet.cli.arguments import EnvOption, Machine, variables
from hyperfleet.cli.attached import IN, forwarding, show, terminal_size
from hyperfleet.cli.complaints import complain
from hyperfleet.cli.connect import find
from hyperfleet.cli.output import say
from hyperfleet.settings import ENV_FILE

_PIECE = 64 * 1024
_SHELL = "if command -v bash >/dev/null; then exec bash -l; fi; exec sh -l"


def run_in_machine(
    machine: Machine,
    command: Annotated[list[str], typer.Argument(help="A program and its arguments, after --.")],
    *,
    interactive: Annotated[
        bool, typer.Option("--interactive", "-i", help="Give it the input of this command.")
    ] = False,
    terminal: Annotated[
        bool, typer.Option("--tty", "-t", help="Give it a terminal; with -i, to be sat at.")
    ] = False,
    env: EnvOption = None,
    cwd: Annotated[str | None, typer.Option("--workdir", "-w", help="A folder there.")] = None,
    timeout: Annotated[
        float | None, typer.Option(help="Seconds, after which it is killed.")
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(help="Keep it under this name when the connection ends; see attach."),
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return when it runs; it needs a name.")
    ] = False,
) -> None:
    """Run a program in a machine; ends with its exit code."""
    if detach and name is None:
        raise typer.BadParameter("what is to run on needs a name: pass --name too")
    _run(
        machine,
        command,
        keys=interactive,
        terminal=terminal,
        env=variables(env),
        cwd=cwd,
        timeout=timeout,
        name=name,
        detach=detach,
    )


def attach(
    machine: Machine,
    name: Annotated[str, typer.Argument(metavar="NAME", help="As given to exec; see ps.")],
    *,
    interactive: Annotated[
        bool,
        typer.Option("--interactive", "-i", help="Give it the input of this command."),
    ] = False,
) -> None:
    """Go on with a process that has a name; whoever is attached is left out.

    What nobody has seen of its output comes first. At a terminal it gets the keys.
    """
    server = find(os.environ, ENV_FILE)
    with sdk.ProcessStream.attach(server.url, server.key, machine, name) as stream:
        found = stream.attachment
        if found is None:
            raise typer.Exit(1)
        if found.dropped:
            complain(f"{found.dropped} bytes of its output are lost, which nobody took in time")
        seated = found.terminal and os.isatty(IN)
        if seated:
            stream.resize(*terminal_size())
        _carry(stream, keys=found.stdin and (interactive or seated), terminal=seated, stays=True)


def shell(machine: Machine) -> None:
    """Sit down at a machine: a shell at a terminal."""
    _run(machine, ["sh", "-c", _SHELL], keys=True, terminal=True, env={})


def _run(
    machine: str,
    command: list[str],
    *,
    keys: bool,
    terminal: bool,
    env: dict[str, str],
    cwd: str | None = None,
    timeout: float | None = None,
    name: str | None = None,
    detach: bool = False,
) -> None:
    if terminal and keys and not os.isatty(IN):
        raise typer.BadParameter("the input is no terminal; leave -t out to pass it on as it is")
    if terminal and "TERM" in os.environ:
        env = {"TERM": os.environ["TERM"], **env}
    server = find(os.environ, ENV_FILE)
    stream = sdk.ProcessStream(
        server.url,
        server.key,
        machine,
        command,
        env=env,
        cwd=cwd,
        stdin=keys,
        terminal=terminal_size() if terminal else None,
        timeout=timeout,
        name=name,
    )
    with stream:
        if detach and stream.attachment is not None:
            say(f"{name} runs in {machine}; hyperfleet attach {machine} {name} shows it.")
            return
        _carry(stream, keys=keys, terminal=terminal, stays=name is not None)


def _carry(stream: sdk.ProcessStream, *, keys: bool, terminal: bool, stays: bool) -> None:
    """Shows it to its end, and ends with its exit code."""
    with (
        forwarding(stream, terminal=terminal, stays=stays),
        _raw(IN, wanted=terminal and keys),
    ):
        if keys:
            threading.Thread(target=_feed, args=(stream,), daemon=True).start()
        for output in stream:
            show(output)
    assert stream.exit is not None  # noqa: S101 - its output ends with it, or by an error
    sys.exit(stream.exit.exit_code)


@contextlib.contextmanager
def _raw(descriptor: int, *, wanted: bool) -> Iterator[None]:
    """Keys go to the process as they are pressed, Ctrl-C too; as before when the block ends."""
    if not wanted:
        yield
        return
    before = termios.tcgetattr(descriptor)
    tty.setraw(descriptor)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _feed(stream: sdk.ProcessStream) -> None:
    while data := os.read(IN, _PIECE):
        stream.write(data)
    stream.end_input()
