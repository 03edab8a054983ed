"""`hyperfleet exec` and `hyperfleet shell`: a process in a machine, as if it ran here."""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import signal
import sys
import termios
import threading
import tty
from collections.abc import Callable, Iterator
from typing import Annotated

import typer

from hyperfleet.cli.connect import ENV_FILE, find
from hyperfleet.client import ProcessStream

_IN, _OUT, _ERR = 0, 1, 2
_PIECE = 64 * 1024
_SHELL = "if command -v bash >/dev/null; then exec bash -l; fi; exec sh -l"
# What a process in a machine is told in our place, where no terminal turns keys into them.
_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)

Machine = Annotated[str, typer.Argument(metavar="MACHINE", help="Its name or id.")]


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
    env: Annotated[
        list[str] | None, typer.Option("--env", "-e", help="NAME=VALUE; may be repeated.")
    ] = None,
    cwd: Annotated[str | None, typer.Option("--workdir", "-w", help="A folder there.")] = None,
    timeout: Annotated[
        float | None, typer.Option(help="Seconds, after which it is killed.")
    ] = None,
) -> None:
    """Run a program in a machine; ends with its exit code."""
    variables = dict(_variable(text) for text in env or ())
    _run(
        machine,
        command,
        keys=interactive,
        terminal=terminal,
        env=variables,
        cwd=cwd,
        timeout=timeout,
    )


def shell(machine: Machine) -> None:
    """Sit down at a machine: a shell at a terminal."""
    _run(machine, ["sh", "-c", _SHELL], keys=True, terminal=True, env={}, cwd=None, timeout=None)


def _run(
    machine: str,
    command: list[str],
    *,
    keys: bool,
    terminal: bool,
    env: dict[str, str],
    cwd: str | None,
    timeout: float | None,
) -> None:
    if terminal and keys and not os.isatty(_IN):
        raise typer.BadParameter("the input is no terminal; leave -t out to pass it on as it is")
    if terminal and "TERM" in os.environ:
        env = {"TERM": os.environ["TERM"], **env}
    server = find(os.environ, ENV_FILE)
    stream = ProcessStream(
        server.url,
        server.key,
        machine,
        command,
        env=env,
        cwd=cwd,
        stdin=keys,
        terminal=_size() if terminal else None,
        timeout=timeout,
    )
    with stream, _orders(stream, terminal=terminal), _raw(_IN, wanted=terminal and keys):
        if keys:
            threading.Thread(target=_feed, args=(stream,), daemon=True).start()
        for output in stream:
            _write(_ERR if output.is_error else _OUT, output.data)
    assert stream.exit is not None  # noqa: S101 - its output ends with it, or by an error
    sys.exit(stream.exit.exit_code)


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise typer.BadParameter(f"--env {text}: must be NAME=VALUE")
    return name, value


def _size() -> tuple[int, int]:
    size = shutil.get_terminal_size()
    return max(1, size.lines), max(1, size.columns)


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


@contextlib.contextmanager
def _orders(stream: ProcessStream, *, terminal: bool) -> Iterator[None]:
    """Signals and sizes go on to the process; by a thread, since a handler must not wait."""
    orders: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()

    def carry() -> None:
        while (order := orders.get()) is not None:
            order()

    def forward(number: int, _: object) -> None:
        name = signal.Signals(number).name.removeprefix("SIG")
        orders.put(lambda: stream.signal(name))

    def resize(_number: int, _: object) -> None:
        orders.put(lambda: stream.resize(*_size()))

    handlers: dict[signal.Signals, Callable[[int, object], None]]
    handlers = dict.fromkeys(_FORWARDED, forward)
    if terminal:
        handlers[signal.SIGWINCH] = resize
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    carrier = threading.Thread(target=carry, daemon=True)
    carrier.start()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        orders.put(None)
        carrier.join()


def _feed(stream: ProcessStream) -> None:
    while data := os.read(_IN, _PIECE):
        stream.write(data)
    stream.end_input()


def _write(descriptor: int, data: bytes) -> None:
    unwritten = memoryview(data)
    while unwritten:
        unwritten = unwritten[os.write(descriptor, unwritten) :]
