"""What several commands are told in the same words: a machine, sizes, variables, ports, labels."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Annotated

import typer

from hyperfleet.cli.connect import connect
from hyperfleet.client import Client, Egress, EgressRule, MachineDisk, PortOptions

# Names for completion; whoever presses a key waits no longer.
_MOST_NAMES = 500
_UNITS = {"": 1, "M": 1, "G": 1024}
_HIGHEST_PORT = 65535


def completed(incomplete: str, names: Callable[[Client], Iterable[str]]) -> list[str]:
    """Names that begin so, for a shell's completion: none when no server answers, and no words."""
    try:
        with connect() as client:
            return [name for name in names(client) if name.startswith(incomplete)]
    except Exception:  # noqa: BLE001 - nobody could read it
        return []


def machine_names(incomplete: str) -> list[str]:
    """See `completed`."""

    def names(client: Client) -> list[str]:
        return [machine.name for machine in client.list_machines(limit=_MOST_NAMES).machines]

    return completed(incomplete, names)


Machine = Annotated[
    str,
    typer.Argument(metavar="MACHINE", help="Its name or id.", autocompletion=machine_names),
]
Machines = Annotated[
    list[str],
    typer.Argument(metavar="MACHINE...", help="Names or ids.", autocompletion=machine_names),
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON, for programs.")]
Cpus = Annotated[int, typer.Option("--cpus", "-c", help="Virtual CPUs.", min=1)]
Memory = Annotated[str, typer.Option("--memory", "-m", help="In MiB, or such as 512M, 2G.")]
PortOption = Annotated[
    list[int] | None,
    typer.Option(
        "--port", "-p", help="Exposed to the proxy; may be repeated.", min=1, max=_HIGHEST_PORT
    ),
]
PortHostOption = Annotated[
    list[str] | None,
    typer.Option(
        "--port-host",
        help="PORT=HOST: the server there gets HOST as its Host, such as 5173=localhost:5173; "
        "may be repeated.",
    ),
]
KeepPrefixOption = Annotated[
    list[int] | None,
    typer.Option(
        "--keep-prefix", help="By path, that port gets the proxy's prefix too; may be repeated."
    ),
]
EnvOption = Annotated[
    list[str] | None, typer.Option("--env", "-e", help="NAME=VALUE; may be repeated.")
]
LabelOption = Annotated[
    list[str] | None, typer.Option("--label", "-l", help="KEY=VALUE; may be repeated.")
]
RootfsOption = Annotated[
    str | None, typer.Option("--rootfs", help="Its root disk; else the server's default.")
]
EgressOption = Annotated[
    list[str] | None,
    typer.Option(
        "--egress",
        help="Whom it may speak to: all, none, or NETWORK[:PROTOCOL[:PORT,PORT]], such as "
        "192.0.2.0/24:tcp:80,443; may be repeated.",
    ),
]
RestartOption = Annotated[
    str | None, typer.Option(help="When it comes up again by itself: never, on-failure, always.")
]


SleepOption = Annotated[
    str | None,
    typer.Option(
        "--sleep-after", help="Time without use after which it sleeps: 90s, 10m, 2h; 0: never."
    ),
]


def seconds(text: str) -> int:
    """`90`, `90s`, `10m`, `2h` or `1d`.

    Raises:
        typer.BadParameter: it is none of these.
    """
    found = re.fullmatch(r"([0-9]{1,8})([smhd]?)", text)
    if found is None:
        raise typer.BadParameter(f"--sleep-after {text}: must be such as 90s, 10m or 2h")
    return int(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}[found[2]]


DiskSizeOption = Annotated[
    str | None,
    typer.Option("--disk-size", help="Of its own disk, such as 4G; else its image's."),
]
DiskOption = Annotated[
    list[str] | None,
    typer.Option("--disk", help="DISK:PATH, a data disk and where it is mounted; may be repeated."),
]


def disks(texts: list[str] | None) -> list[MachineDisk]:
    """DISK:PATH each.

    Raises:
        typer.BadParameter: one is not.
    """
    found = []
    for text in texts or ():
        disk, colon, path = text.partition(":")
        if not disk or not colon or not path.startswith("/"):
            raise typer.BadParameter(f"--disk {text}: must be DISK:PATH, such as db:/var/lib/db")
        found.append(MachineDisk(disk=disk, path=path))
    return found


def port_options(
    hosts: list[str] | None, kept_prefixes: list[int] | None
) -> dict[int, PortOptions]:
    """PORT=HOST each, and ports whose prefix is not cut off.

    Raises:
        typer.BadParameter: one is not. Whether ports and hosts can be is the server's to judge.
    """
    host_of = {}
    for text in hosts or ():
        port, equals, host = text.partition("=")
        if not (port.isascii() and port.isdigit()) or not equals or not host:
            raise typer.BadParameter(
                f"--port-host {text}: must be PORT=HOST, such as 5173=localhost:5173"
            )
        host_of[int(port)] = host
    kept = set(kept_prefixes or ())
    return {
        port: PortOptions(host=host_of.get(port), strip_prefix=port not in kept)
        for port in sorted({*host_of, *kept})
    }


def variables(texts: list[str] | None, option: str = "--env") -> dict[str, str]:
    """NAME=VALUE each.

    Raises:
        typer.BadParameter: one is not.
    """
    found = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise typer.BadParameter(f"{option} {text}: must be NAME=VALUE")
        found[name] = value
    return found


def mebibytes(text: str, option: str = "--memory") -> int:
    """`512`, `512M` or `2G`.

    Raises:
        typer.BadParameter: it is none of these.
    """
    found = re.fullmatch(r"([0-9]{1,9})(M|G|)(?:i?B)?", text, re.IGNORECASE)
    if found is None:
        raise typer.BadParameter(f"{option} {text}: must be MiB, or such as 512M or 2G")
    return int(found[1]) * _UNITS[found[2].upper()]


def egress(texts: list[str] | None) -> Egress | None:
    """None where nothing was said.

    Raises:
        typer.BadParameter: one is no rule. Its network and ports are the server's to judge.
    """
    match texts or []:
        case []:
            return None
        case ["all"]:
            return "all"
        case ["none"]:
            return "none"
        case rules:
            return tuple(_rule(text) for text in rules)


def _rule(text: str) -> EgressRule:
    network, _, rest = text.partition(":")
    protocol, _, ports = rest.partition(":")
    listed = ports.split(",") if ports else []
    if protocol not in ("", "tcp", "udp") or not all(port.isdigit() for port in listed):
        raise typer.BadParameter(
            f"--egress {text}: must be all, none, or NETWORK[:PROTOCOL[:PORT,PORT]]"
        )
    return EgressRule(
        network=network,
        protocol=protocol or None,  # type: ignore[arg-type]
        ports=tuple(map(int, listed)),
    )
