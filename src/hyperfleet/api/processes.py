"""The endpoints of processes that have a name: they outlive the connection that ran them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec
from fastapi import APIRouter, Path, Response
from pydantic import BaseModel, Field

from hyperfleet.api.machines import Ref
from hyperfleet.api.parts import TheParts
from hyperfleet.api.route import GuardedRoute

router = APIRouter(route_class=GuardedRoute, tags=["machines"])


class ProcessOut(BaseModel):
    name: str
    argv: list[str] = Field(description="The program and its arguments, the first 4 KiB of them.")
    since: datetime = Field(description="When it was started, by the machine's clock.")
    attached: bool = Field(description="Whether a client is attached to it.")
    terminal: bool = Field(description="Whether it is at a terminal.")
    exit_code: int | None = Field(
        description="How it ended, 128 + n by signal n; null while it runs."
    )
    signal: str | None = Field(description="The signal that ended it.")
    untaken: int = Field(description="Bytes of its output that no client has taken.")
    dropped: int = Field(description="How many right before these are lost: it was too much.")


class ProcessesOut(BaseModel):
    processes: list[ProcessOut] = Field(description="The oldest first.")


@router.get("/machines/{id}/processes", summary="List processes that are kept")
async def list_processes(ref: Ref, parts: TheParts) -> ProcessesOut:
    """Processes that were given a name, running ones and those whose end nobody has heard."""
    kept = await parts.machines.processes(ref).kept()
    return ProcessesOut(processes=[ProcessOut(**msgspec.structs.asdict(one)) for one in kept])


@router.delete(
    "/machines/{id}/processes/{name}", status_code=204, summary="Kill a process that is kept"
)
async def kill_process(
    ref: Ref,
    name: Annotated[str, Path(description="The process's name.")],
    parts: TheParts,
) -> Response:
    """Kills a process and all that it started, if it runs, and forgets it; its name is free."""
    await parts.machines.processes(ref).forget(name)
    return Response(status_code=204)
