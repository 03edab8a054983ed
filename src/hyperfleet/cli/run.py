"""`hyperfleet run`: from nothing to a URL, and back to nothing."""

from __future__ import annotations

import contextlib
import os
import secrets
import string
import sys
import threading
from collections.abc import Iterator
from typing import Annotated

import typer

from hyperfleet import client as sdk
from hyperfleet.cli.arguments import (
    Cpus,
    EgressOption,
    EnvOption,
    KeepPrefixOption,
    LabelOption,
    Memory,
    PortHostOption,
    PortOption,
    RootfsOption,
    egress,
    mebibytes,
    port_options,
    variables,
)
from hyperfleet.cli.attached import forwarding, show
from hyperfleet.cli.complaints import complain
from hyperfleet.cli.connect import Target, find
from hyperfleet.cli.output import working
from hyperfleet.client import ApiError, Client, Machine, UnreachableError
from hyperfleet.settings import ENV_FILE

# Seconds between two looks at ports that are waited for; and for a process to end after a signal.
_LOOK_EVERY = 0.5
_ENDS_WITHIN = 10.0
_SUFFIX = string.ascii_lowercase + string.digits


def run(
    command: Annotated[list[str], typer.Argument(help="A program and its arguments, after --.")],
    *,
    name: Annotated[str | None, typer.Option(help="The machine's; else one is made up.")] = None,
    cpus: Cpus = 1,
    memory: Memory = "512",
    port: PortOption = None,
    port_host: PortHostOption = None,
    keep_prefix: KeepPrefixOption = None,
    env: EnvOption = None,
    label: LabelOption = None,
    cwd: Annotated[str | None, typer.Option("--workdir", "-w", help="A folder there.")] = None,
    rootfs: RootfsOption = None,
    egress_rules: EgressOption = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the machine there, and running.")
    ] = False,
) -> None:
    """Run a program in a machine of its own, which goes with it.

    Makes and starts a machine, runs the program, says the URL of each port when a server listens
    there, and shows its output. When the program ends, or by Ctrl-C, the machine is deleted; the
    exit code is the program's.
    """
    server = find(os.environ, ENV_FILE)
    with Client(server.url, server.key) as client:
        machine = client.create_machine(
            name=name or f"run-{''.join(secrets.choice(_SUFFIX) for _ in range(6))}",
            vcpu_count=cpus,
            mem_size_mib=mebibytes(memory),
            rootfs_path=rootfs,
            exposed_ports=port or (),
            env=variables(env),
            labels=variables(label, "--label"),
            egress=egress(egress_rules) or "all",
            port_options=port_options(port_host, keep_prefix),
        )
        with _goes(client, machine, keep=keep):
            with working(f"{machine.name} starts"):
                machine = client.start_machine(machine.id)
            code = _attend(client, server, machine, command, cwd)
    sys.exit(code)


@contextlib.contextmanager
def _goes(client: Client, machine: Machine, *, keep: bool) -> Iterator[None]:
    """Deletes the machine when the block ends, however it does."""
    try:
        yield
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    finally:
        if keep:
            complain(f"{machine.name} stays; `hyperfleet rm -f {machine.name}` deletes it")
        else:
            with working(f"{machine.name} goes"):
                _delete(client, machine)


def _delete(client: Client, machine: Machine) -> None:
    try:
        client.delete_machine(machine.id, force=True)
    except (ApiError, UnreachableError) as error:
        complain(
            f"{machine.name} could not be deleted ({error}); `hyperfleet rm -f {machine.name}`"
        )


def _attend(
    client: Client, server: Target, machine: Machine, command: list[str], cwd: str | None
) -> int:
    """Shows the program's output to its end; its exit code."""
    interrupted: list[str] = []

    def hears(name: str) -> None:
        interrupted.append(name)
        if len(interrupted) > 1:
            raise KeyboardInterrupt
        complain(f"{name} is passed on; once more, and the machine is deleted at once")
        giving_up.start()

    stream = sdk.ProcessStream(server.url, server.key, machine.id, command, cwd=cwd, stdin=False)
    giving_up = threading.Timer(_ENDS_WITHIN, stream.close)
    giving_up.daemon = True
    over = threading.Event()
    looking = threading.Thread(target=_tell_urls, args=(client, machine, over), daemon=True)
    try:
        with stream, forwarding(stream, hears=hears):
            looking.start()
            for output in stream:
                show(output)
    except UnreachableError:
        # Given up by ourselves, or lost.
        if not interrupted:
            raise
    finally:
        over.set()
        giving_up.cancel()
        if looking.ident is not None:
            looking.join()
    return 130 if stream.exit is None else stream.exit.exit_code


def _tell_urls(client: Client, machine: Machine, over: threading.Event) -> None:
    """Says where each exposed port is reached, once a server listens there."""
    waited_for = {port.port for port in machine.ports}
    while waited_for and not over.wait(_LOOK_EVERY):
        try:
            ports = client.machine_ports(machine.id).ports
        except (ApiError, UnreachableError):
            return
        for port in ports:
            if port.listening and port.port in waited_for:
                waited_for.discard(port.port)
                complain(f"port {port.port} is served at {port.url}")
