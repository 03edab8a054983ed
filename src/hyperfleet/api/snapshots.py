"""The endpoints of snapshots: a machine kept as it is, put back, and made anew."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel, Field

from hyperfleet.api import queries, requests
from hyperfleet.api.machines import Ref
from hyperfleet.api.names import NAME, Name
from hyperfleet.api.parts import TheParts
from hyperfleet.api.responses import MachineOut, machine_out
from hyperfleet.api.route import GuardedRoute
from hyperfleet.machine import SnapshotInfo

router = APIRouter(route_class=GuardedRoute, tags=["snapshots"])

SnapshotName = Annotated[str, Path(alias="name", description="The snapshot's name.")]


class SaveSnapshot(requests.Body):
    """A snapshot to make."""

    name: Name = Field(description=NAME)


class RestoreMachine(requests.Body):
    """What a machine is to be again."""

    snapshot: Name = Field(description=f"the name of a snapshot, {NAME}")


class CloneSnapshot(requests.ChangeMachine):
    """A machine to make of a snapshot. What is left out is as the machine had it then."""

    name: Name = Field(description=NAME)


class ListSnapshots(queries.Query):
    """Which snapshots to list."""

    machine: Annotated[str, Field(min_length=1, max_length=100)] | None = Field(
        default=None, description="a machine's id or name, whose snapshots are listed alone"
    )


class SnapshotMachine(BaseModel):
    id: str
    name: str = Field(description="What it was called then.")


class SnapshotOut(BaseModel):
    name: str
    machine: SnapshotMachine = Field(description="Of which it was made; it may be gone.")
    memory: bool = Field(
        description="Whether what the machine had in memory is in it; else its disk alone."
    )
    vcpu_count: int
    mem_size_mib: int
    rootfs_path: str = Field(description="What its disk was made over.")
    vmm: str
    size_bytes: int = Field(description="What it takes of the host's disk.")
    created_at: datetime


class SnapshotsOut(BaseModel):
    snapshots: list[SnapshotOut] = Field(description="The oldest first.")


@router.post("/machines/{id}/snapshots", status_code=201, summary="Make a snapshot")
async def snapshot_machine(ref: Ref, body: SaveSnapshot, parts: TheParts) -> SnapshotOut:
    """Keeps the machine as it is at this moment: its disk, and its memory if it runs or sleeps.

    One that runs stands still meanwhile, with all its connections, and goes on.
    """
    return snapshot_out(await parts.machines.snapshot(ref, body.name))


@router.post("/machines/{id}/restore", summary="Put a snapshot back")
async def restore_machine(ref: Ref, body: RestoreMachine, parts: TheParts) -> MachineOut:
    """Makes the machine what it was when its snapshot was made; what it is now is lost.

    It is `sleeping` then, and a start has it go on, or `stopped` if the snapshot has no memory.
    Ports, labels and rules stay as they are.
    """
    return machine_out(await parts.machines.restore(ref, body.snapshot), parts.urls)


@router.get("/snapshots", summary="List snapshots")
async def list_snapshots(query: Annotated[ListSnapshots, Query()], parts: TheParts) -> SnapshotsOut:
    """Every snapshot, or those of one machine."""
    return snapshots_out(parts.machines.snapshots(query.machine))


@router.get("/snapshots/{name}", summary="Show a snapshot")
async def get_snapshot(name: SnapshotName, parts: TheParts) -> SnapshotOut:
    """One snapshot."""
    return snapshot_out(parts.machines.find_snapshot(name))


@router.post("/snapshots/{name}/clone", status_code=201, summary="Make a machine of a snapshot")
async def clone_snapshot(name: SnapshotName, body: CloneSnapshot, parts: TheParts) -> MachineOut:
    """Makes a machine with disk and memory of its own, which are the snapshot's.

    It is `sleeping` until it is started, or `stopped` if the snapshot has no memory. It gets a name
    and addresses of its own as it starts; all else, keys and ids on its disk too, is as it was.
    """
    return machine_out(await parts.machines.clone(name, body.name, body.change), parts.urls)


@router.delete("/snapshots/{name}", status_code=204, summary="Delete a snapshot")
async def delete_snapshot(name: SnapshotName, parts: TheParts) -> Response:
    """Removes a snapshot. Machines that were made of it stay as they are."""
    await parts.machines.remove_snapshot(name)
    return Response(status_code=204)


def snapshot_out(info: SnapshotInfo) -> SnapshotOut:
    """A snapshot as the API shows it."""
    return SnapshotOut(
        name=info.name,
        machine=SnapshotMachine(id=info.machine_id, name=info.spec.name),
        memory=info.has_memory,
        vcpu_count=info.spec.vcpu_count,
        mem_size_mib=info.spec.mem_size_mib,
        rootfs_path=info.spec.rootfs_path,
        vmm=info.vmm,
        size_bytes=info.size_bytes,
        created_at=info.made_at,
    )


def snapshots_out(infos: Sequence[SnapshotInfo]) -> SnapshotsOut:
    """Several."""
    return SnapshotsOut(snapshots=[snapshot_out(info) for info in infos])
