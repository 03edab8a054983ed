"""The endpoints of data disks, which outlive machines, and of how full disks are."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path, Response
from pydantic import BaseModel, Field

from hyperfleet.api import requests
from hyperfleet.api.machines import Ref
from hyperfleet.api.names import NAME, Name
from hyperfleet.api.parts import TheParts
from hyperfleet.api.route import GuardedRoute
from hyperfleet.machine import DataDiskState

router = APIRouter(route_class=GuardedRoute, tags=["disks"])

DiskName = Annotated[str, Path(alias="name", description="The disk's name.")]


class CreateDisk(requests.Body):
    """A data disk to make."""

    name: Name = Field(description=NAME)
    size_mib: requests.DiskSize = Field(description=requests.DISK_SIZE)


class GrowDisk(requests.Body):
    """How large a data disk is to be."""

    size_mib: requests.DiskSize = Field(
        description=f"{requests.DISK_SIZE}, and no less than the disk has"
    )


class DiskMachine(BaseModel):
    id: str
    name: str | None


class DiskOut(BaseModel):
    name: str
    size_mib: int
    host_bytes: int = Field(description="What it takes of the host's disk.")
    machine: DiskMachine | None = Field(description="Which has it; null: none.")
    vmm: str
    created_at: datetime


class DisksOut(BaseModel):
    disks: list[DiskOut] = Field(description="The oldest first.")


class UsageOut(BaseModel):
    disk: str | None = Field(description="A data disk's name; null: the machine's own disk.")
    path: str = Field(description="Where it is mounted.")
    size_bytes: int | None = Field(description="What it can hold; null: nobody can tell now.")
    used_bytes: int | None = Field(
        description="Of its file system; null: the machine does not run, or does not tell."
    )
    host_bytes: int = Field(description="What it takes of the host's disk.")


class UsagesOut(BaseModel):
    disks: list[UsageOut] = Field(description="The machine's own first.")


@router.post("/disks", status_code=201, summary="Make a data disk")
async def create_disk(body: CreateDisk, parts: TheParts) -> DiskOut:
    """Makes an empty disk with a file system (ext4). It takes no room until it is written to.

    A machine is given it with `disks`, when it is made or changed.
    """
    return disk_out(await parts.machines.disks.create(body.name, body.size_mib))


@router.get("/disks", summary="List data disks")
async def list_disks(parts: TheParts) -> DisksOut:
    """Every data disk, and which machine has it."""
    return DisksOut(disks=[disk_out(disk) for disk in parts.machines.disks.every()])


@router.get("/disks/{name}", summary="Show a data disk")
async def get_disk(name: DiskName, parts: TheParts) -> DiskOut:
    """One data disk."""
    return disk_out(parts.machines.disks.get(name))


@router.patch("/disks/{name}", summary="Make a data disk larger")
async def grow_disk(name: DiskName, body: GrowDisk, parts: TheParts) -> DiskOut:
    """Makes it larger; its machine must not be running, and has all of it at its next start."""
    return disk_out(await parts.machines.disks.grow(name, body.size_mib))


@router.delete("/disks/{name}", status_code=204, summary="Delete a data disk")
async def delete_disk(name: DiskName, parts: TheParts) -> Response:
    """Removes a data disk with all that is on it. No machine may have it."""
    await parts.machines.disks.remove(name)
    return Response(status_code=204)


@router.get("/machines/{id}/disks", summary="Show how full a machine's disks are")
async def machine_disks(ref: Ref, parts: TheParts) -> UsagesOut:
    """The machine's own disk and its data disks; how full they are is told while it runs."""
    return UsagesOut(
        disks=[
            UsageOut(
                disk=usage.disk,
                path=usage.path,
                size_bytes=usage.size,
                used_bytes=usage.used,
                host_bytes=usage.host,
            )
            for usage in await parts.machines.disks.usage(ref)
        ]
    )


def disk_out(disk: DataDiskState) -> DiskOut:
    """A data disk as the API shows it."""
    machine = None
    if disk.machine_id is not None:
        machine = DiskMachine(id=disk.machine_id, name=disk.machine_name)
    return DiskOut(
        name=disk.info.name,
        size_mib=disk.size >> 20,
        host_bytes=disk.host,
        machine=machine,
        vmm=disk.info.vmm,
        created_at=disk.info.made_at,
    )
