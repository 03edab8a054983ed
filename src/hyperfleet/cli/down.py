"""`hyperfleet down`: the end of everything that this home runs."""

from __future__ import annotations

import os
import select
import signal

import typer

from hyperfleet.cli.complaints import complain
from hyperfleet.cli.connect import connect, every_machine
from hyperfleet.cli.output import say
from hyperfleet.client import ApiError, Client
from hyperfleet.server.lock import holder_of
from hyperfleet.settings import ENV_FILE, load

_ALIVE = ("starting", "running", "paused", "stopping")
_LAST_REQUESTS = 60.0


def down() -> None:
    """Stop every machine, then the server; without machines the data plane ends with it."""
    home = load(os.environ, ENV_FILE).settings.hyperfleet_home
    server = holder_of(home / "lock")
    if server is None:
        complain(
            f"no server runs on {home}; start `hyperfleet serve`, which takes over whatever "
            "still runs, then run `hyperfleet down` again"
        )
        raise typer.Exit(1)
    with connect() as client:
        failed = _stop_all(client)
    if failed:
        complain("the server was left running")
        raise typer.Exit(1)
    _end(server)
    say("The server has stopped.")


def _stop_all(client: Client) -> bool:
    failed = False
    alive = [machine for machine in every_machine(client) if machine.status in _ALIVE]
    for machine in alive:
        try:
            client.stop_machine(machine.id)
        except ApiError as error:
            complain(f"{machine.name} would not stop: {error.message}")
            failed = True
        else:
            say(f"{machine.name} is stopped.")
    return failed


def _end(server: int) -> None:
    """SIGTERM, and wait; by a pidfd, so that it can be no other process of that number."""
    process = os.pidfd_open(server)
    try:
        signal.pidfd_send_signal(process, signal.SIGTERM)
        if not select.select([process], [], [], _LAST_REQUESTS)[0]:
            complain(f"the server (process {server}) is still finishing its requests")
            raise typer.Exit(1)
    finally:
        os.close(process)
