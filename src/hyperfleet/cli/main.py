"""The command line's entry: every error becomes one line that says what to do, and an exit code.

Exit codes: 0 done; 1 refused or failed; 2 wrong usage or settings; 3 no server answers; 4 the key
is missing, unknown, or lacks a scope.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from typer.main import get_command_name
from typer.models import CommandInfo

from hyperfleet import __version__
from hyperfleet.cli import disks, follow, keys, machines, snapshots, templates
from hyperfleet.cli.complaints import FAILED, complain, give_up
from hyperfleet.cli.cp import cp
from hyperfleet.cli.down import down
from hyperfleet.cli.exec import attach, run_in_machine, shell
from hyperfleet.cli.host import doctor, serve, setup
from hyperfleet.cli.output import say
from hyperfleet.cli.ps import kill, ps
from hyperfleet.cli.record import backup, restore
from hyperfleet.cli.run import run
from hyperfleet.cli.settings import settings
from hyperfleet.client import ApiError, UnreachableError, UntrustedError
from hyperfleet.errors import HyperfleetError

UNREACHABLE, NO_ENTRY = 3, 4

app = typer.Typer(
    name="hyperfleet",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
# As `--help` lists them: a machine's life, what goes on in one, the server.
app.command()(run)
app.command()(machines.create)
app.command("list")(machines.list_machines)
app.command()(machines.show)
app.command()(machines.change)
app.command()(machines.start)
app.command()(machines.stop)
app.command()(machines.restart)
app.command()(machines.pause)
app.command()(machines.resume)
app.command()(machines.sleep)
app.command("rm")(machines.remove)
app.command()(machines.wait)
app.command("exec")(run_in_machine)
app.command()(shell)
app.command()(attach)
app.command()(ps)
app.command()(kill)
app.command()(cp)
app.command()(machines.ports)
app.command()(follow.logs)
app.command()(follow.events)
app.command()(serve)
app.command()(down)
app.command()(setup)
app.command()(doctor)
app.command()(settings)
app.add_typer(disks.app, name="disks")
app.add_typer(snapshots.app, name="snapshots")
app.add_typer(templates.app, name="templates")
app.add_typer(keys.app, name="keys")
app.command()(backup)
app.command()(restore)


def _show_version(asked: bool) -> None:
    if asked:
        version()
        raise typer.Exit


@app.callback()
def options(
    _: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Run microVMs that have an address."""


@app.command()
def version() -> None:
    """Show the version."""
    say(__version__)


def main() -> None:
    """Runs a command and exits."""
    _leave_only(sys.argv[1:2])
    try:
        app()
    except ApiError as error:
        complain(_with_advice(error))
        sys.exit(NO_ENTRY if error.code in ("UNAUTHORIZED", "FORBIDDEN") else FAILED)
    except UntrustedError as error:
        complain(str(error))
        sys.exit(UNREACHABLE)
    except UnreachableError as error:
        complain(f"{error}; start one with `hyperfleet serve`, or set HYPERFLEET_URL")
        sys.exit(UNREACHABLE)
    except HyperfleetError as error:
        sys.exit(give_up(error))


def _leave_only(asked: list[str]) -> None:
    """Leaves out all commands but the one whose name is given, if it is one's.

    Typer builds every command, with all that checks its arguments, before it looks at which is
    asked for.
    """

    def name(command: CommandInfo) -> str:
        assert command.callback is not None  # noqa: S101 - the decorator's own
        return command.name or get_command_name(command.callback.__name__)

    commands = [command for command in app.registered_commands if name(command) in asked]
    groups = [group for group in app.registered_groups if group.name in asked]
    if commands or groups:
        app.registered_commands, app.registered_groups = commands, groups


def _with_advice(error: ApiError) -> str:
    match error.code:
        case "UNAUTHORIZED":
            return f"{error.message}; set HYPERFLEET_API_KEY, or run where the home's api-key is"
        case "INTERNAL_ERROR" if error.request_id:
            return f"{error.message} (request {error.request_id})"
        case _:
            return error.message
