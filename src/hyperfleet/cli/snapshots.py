"""`hyperfleet snapshots`: machines kept as they were, put back, and made anew."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from hyperfleet.cli.arguments import (
    AsJson,
    LabelOption,
    Machine,
    PortOption,
    completed,
    machine_names,
    variables,
)
from hyperfleet.cli.connect import connect
from hyperfleet.cli.output import mib, say, say_json, say_table, span, working
from hyperfleet.client import Client, to_json
from hyperfleet.client import Machine as MachineValue

app = typer.Typer(help="Machines kept as they were: save, restore, clone, rm.")


def _names(incomplete: str) -> list[str]:
    return completed(incomplete, lambda client: [one.name for one in client.list_snapshots()])


Snapshot = Annotated[
    str, typer.Argument(metavar="SNAPSHOT", help="Its name.", autocompletion=_names)
]
Start = Annotated[
    bool, typer.Option("--start/--no-start", help="And have it go on, if it has a memory.")
]


@app.callback(invoke_without_command=True)
def list_snapshots(
    context: typer.Context,
    machine: Annotated[
        str | None,
        typer.Option(help="Only this machine's.", autocompletion=machine_names),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List them, the oldest first."""
    if context.invoked_subcommand is not None:
        return
    with connect() as client:
        snapshots = client.list_snapshots(machine=machine)
    if as_json:
        say_json({"snapshots": to_json(snapshots)})
        return
    now = datetime.now(UTC)
    say_table(
        ("NAME", "MACHINE", "HOLDS", "CPUS", "MEMORY", "TAKES", "MADE"),
        [
            (
                snapshot.name,
                snapshot.machine.name,
                "memory, disk" if snapshot.memory else "disk",
                str(snapshot.vcpu_count),
                f"{snapshot.mem_size_mib} MiB",
                mib(snapshot.size_bytes),
                f"{span(now - snapshot.created_at)} ago",
            )
            for snapshot in snapshots
        ],
    )


@app.command()
def save(
    machine: Machine,
    name: Annotated[str, typer.Argument(help="A DNS label: a-z, 0-9 and inner dashes.")],
    as_json: AsJson = False,
) -> None:
    """Keep a machine as it is at this moment, with its memory if it runs; it goes on."""
    with connect() as client, working(f"{machine} is being copied"):
        made = client.snapshot_machine(machine, name)
    if as_json:
        say_json(to_json(made))
        return
    what = "memory and disk" if made.memory else "disk"
    say(f"{made.name} is the {what} of {made.machine.name}, {mib(made.size_bytes)}.")


@app.command()
def restore(
    machine: Machine, snapshot: Snapshot, start: Start = True, as_json: AsJson = False
) -> None:
    """Make a machine what it was when its snapshot was made; what it is now is lost."""
    with connect() as client, working(f"{machine} becomes {snapshot}"):
        restored = _going_on(client, client.restore_machine(machine, snapshot), start=start)
    _tell(restored, f"is as it was in {snapshot}", as_json=as_json)


@app.command()
def clone(
    snapshot: Snapshot,
    name: Annotated[str, typer.Argument(help="Of the new machine.")],
    *,
    port: PortOption = None,
    label: LabelOption = None,
    start: Start = True,
    as_json: AsJson = False,
) -> None:
    """Make a new machine of a snapshot; ports and labels are as they were then, unless given."""
    with connect() as client, working(f"{name} is made"):
        made = client.clone_snapshot(
            snapshot,
            name=name,
            exposed_ports=port,
            labels=variables(label, "--label") if label else None,
        )
        made = _going_on(client, made, start=start)
    _tell(made, f"is made of {snapshot}", as_json=as_json)


@app.command("rm")
def remove(snapshot: Snapshot) -> None:
    """Delete a snapshot. Machines that were made of it stay as they are."""
    with connect() as client:
        client.delete_snapshot(snapshot)
    say(f"Snapshot {snapshot} is deleted.")


def _going_on(client: Client, machine: MachineValue, *, start: bool) -> MachineValue:
    if start and machine.status == "sleeping":
        return client.start_machine(machine.id)
    return machine


def _tell(machine: MachineValue, what: str, *, as_json: bool) -> None:
    if as_json:
        say_json(to_json(machine))
        return
    say(f"{machine.name} {what}, and {machine.status}.")
    if machine.status == "running":
        for port in machine.ports:
            say(f"  port {port.port}: {port.url}")
