"""Whether record, processes, sockets, folders, forwards and database agree. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

ALIVE = ("starting", "running", "paused", "stopping")


@dataclass(frozen=True)
class Reality:
    """What was found, all at one quiet moment."""

    machines: tuple[dict[str, Any], ...]
    """As the API lists them."""
    rows: dict[str, tuple[str, int | None]]
    """As the database has them: status and pid by id."""
    qemus: dict[int, str]
    """The processes: pid to the id that each names."""
    folders: frozenset[str]
    """Names in `machines/`."""
    sockets: frozenset[str]
    """Unix sockets that listen in there: `ID/qmp.sock`, say."""
    forwards: dict[int, int] = field(default_factory=dict)
    """How many TCP sockets each QEMU listens on."""
    snapshots: frozenset[str] = frozenset()
    """As the API lists them."""
    kept: frozenset[str] = frozenset()
    """Names in `snapshots/`."""


def under_way(machine: dict[str, Any]) -> bool:
    """Whether what the API says of a machine is about to change by itself."""
    return machine["status"] in ("starting", "stopping") or machine["next_start_at"] is not None


def leftovers(reality: Reality) -> list[str]:
    """What no machine of the record accounts for."""
    known = {machine["id"] for machine in reality.machines}
    alive = {machine["id"] for machine in reality.machines if machine["status"] in ALIVE}
    found = [
        f"QEMU {pid} of machine {owner}, which does not run"
        for pid, owner in reality.qemus.items()
        if owner not in alive
    ]
    found += [f"folder {name} of no machine" for name in sorted(reality.folders - known)]
    found += [f"folder {name} of no snapshot" for name in sorted(reality.kept - reality.snapshots)]
    found += [
        f"socket {path} of a machine that does not run"
        for path in sorted(reality.sockets)
        if path.partition("/")[0] not in alive
    ]
    return found


def disagreements(reality: Reality) -> list[str]:
    """Where the parts contradict each other, none of them under way."""
    found = []
    for machine in reality.machines:
        name, status, pid = machine["name"], machine["status"], machine["pid"]
        own = [one for one, owner in reality.qemus.items() if owner == machine["id"]]
        if len(own) > 1:
            found.append(f"{name} runs {len(own)} times: {sorted(own)}")
        # The fake driver's have no process of their own.
        if status == "running" and own != [pid] and machine.get("vmm") != "fake":
            found.append(f"{name} is running as {pid}; its processes are {own}")
        if status not in ALIVE and pid is not None:
            found.append(f"{name} is {status} and has pid {pid}")
        if status == "running" and machine["id"] not in reality.folders:
            found.append(f"{name} is running without a folder")
        if status == "running" and own == [pid]:
            ways, exposed = reality.forwards.get(pid, 0), len(machine["exposed_ports"])
            # To a server on its loopback leads a relay, with a way in of its own.
            relays = sum(
                port["address"] in ("127.0.0.1", "::1") for port in machine.get("ports", ())
            )
            if ways != exposed + relays:
                found.append(f"{name} has {ways} ways in for {exposed} exposed ports")
        if reality.rows.get(machine["id"]) != (status, pid):
            row = reality.rows.get(machine["id"])
            found.append(f"{name} is {status}, pid {pid}; the database has {row}")
    found += [f"snapshot {name} has no folder" for name in sorted(reality.snapshots - reality.kept)]
    known = {machine["id"] for machine in reality.machines}
    found += [
        f"the database has {one}, the API does not" for one in reality.rows if one not in known
    ]
    return found
