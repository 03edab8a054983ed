"""`hyperfleet disks`: data disks, which outlive machines."""

from __future__ import annotations

from typing import Annotated

import typer

from hyperfleet.cli.arguments import AsJson, completed, machine_names, mebibytes
from hyperfleet.cli.connect import connect
from hyperfleet.cli.output import mib, say, say_json, say_table
from hyperfleet.client import to_json

app = typer.Typer(help="Data disks, which outlive machines: create, grow, usage, rm.")


def _names(incomplete: str) -> list[str]:
    return completed(incomplete, lambda client: [disk.name for disk in client.list_disks()])


Disk = Annotated[str, typer.Argument(metavar="DISK", help="Its name.", autocompletion=_names)]
Size = Annotated[str, typer.Option("--size", "-s", help="In MiB, or such as 512M, 10G.")]


@app.callback(invoke_without_command=True)
def list_disks(context: typer.Context, as_json: AsJson = False) -> None:
    """List them, the oldest first."""
    if context.invoked_subcommand is not None:
        return
    with connect() as client:
        disks = client.list_disks()
    if as_json:
        say_json({"disks": to_json(disks)})
        return
    say_table(
        ("NAME", "SIZE", "TAKES", "MACHINE"),
        [
            (
                disk.name,
                f"{disk.size_mib} MiB",
                mib(disk.host_bytes),
                "-" if disk.machine is None else disk.machine.name or disk.machine.id,
            )
            for disk in disks
        ],
    )


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="A DNS label: a-z, 0-9 and inner dashes.")],
    size: Size = "1024",
    as_json: AsJson = False,
) -> None:
    """Make an empty one; it takes no room of the host's until it is written to."""
    with connect() as client:
        made = client.create_disk(name, size_mib=mebibytes(size, "--size"))
    if as_json:
        say_json(to_json(made))
        return
    say(f"Disk {made.name} is made; give it to a machine with --disk {made.name}:/PATH.")


@app.command()
def grow(disk: Disk, size: Size, as_json: AsJson = False) -> None:
    """Make one larger; its machine must not be running."""
    with connect() as client:
        grown = client.grow_disk(disk, size_mib=mebibytes(size, "--size"))
    if as_json:
        say_json(to_json(grown))
        return
    say(f"Disk {grown.name} has {grown.size_mib} MiB.")


@app.command()
def usage(
    machine: Annotated[
        str,
        typer.Argument(metavar="MACHINE", help="Its name or id.", autocompletion=machine_names),
    ],
    as_json: AsJson = False,
) -> None:
    """Show how full the disks of a machine are."""
    with connect() as client:
        found = client.machine_disks(machine)
    if as_json:
        say_json({"disks": to_json(found)})
        return
    say_table(
        ("PATH", "DISK", "SIZE", "USED", "TAKES"),
        [
            (
                one.path,
                one.disk or "-",
                mib(one.size_bytes),
                mib(one.used_bytes),
                mib(one.host_bytes),
            )
            for one in found
        ],
    )


@app.command("rm")
def remove(disk: Disk) -> None:
    """Delete one with all that is on it; no machine may have it."""
    with connect() as client:
        client.delete_disk(disk)
    say(f"Disk {disk} is deleted.")
