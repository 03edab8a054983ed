"""The endpoints of machines: HTTP in, one call to the fleet, HTTP out."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import PlainTextResponse, StreamingResponse

from hyperfleet.api import queries, requests, streams
from hyperfleet.api.attached import disks_of
from hyperfleet.api.egress import egress_of
from hyperfleet.api.parts import TheCaller, TheParts
from hyperfleet.api.port_options import port_options_of
from hyperfleet.api.responses import (
    ActivityOut,
    ExecOut,
    MachineOut,
    MachinesOut,
    PortsOut,
    activity_out,
    exec_out,
    machine_out,
    ports_out,
)
from hyperfleet.api.route import GuardedRoute
from hyperfleet.guest.values import ExecRequest
from hyperfleet.machine import MachineSpec
from hyperfleet.settings import Settings

router = APIRouter(route_class=GuardedRoute, tags=["machines"])

Ref = Annotated[str, Path(alias="id", description="The machine's id or its name.")]


@router.post("/machines", status_code=201, summary="Make a machine")
async def create_machine(body: requests.CreateMachine, parts: TheParts) -> MachineOut:
    """Records a machine, `pending` until it is started."""
    return machine_out(await parts.machines.create(_spec(body, parts.settings)), parts.urls)


@router.get("/machines", response_model=MachinesOut, summary="List machines")
async def list_machines(
    query: Annotated[queries.ListMachines, Query()], parts: TheParts
) -> Response:
    """Machines in the order they were made."""
    labels = [label.partition("=") for label in query.label]
    machines, total = parts.machines.list(
        status=query.status,
        labels=[(key, value if equals else None) for key, equals, value in labels],
        limit=query.limit,
        offset=query.offset,
    )
    return Response(parts.listing.page(machines, total, parts.urls), media_type="application/json")


@router.get("/machines/{id}", summary="Show a machine")
async def get_machine(ref: Ref, parts: TheParts) -> MachineOut:
    """The machine as it stands."""
    return machine_out(parts.machines.get(ref), parts.urls)


@router.patch("/machines/{id}", summary="Change a machine")
async def change_machine(ref: Ref, body: requests.ChangeMachine, parts: TheParts) -> MachineOut:
    """Other ports, labels, egress or rules of restart, in any state; what is left out stays.

    On a running machine it is in force when the answer comes. One that starts or stops is changed
    when that is done.
    """
    return machine_out(await parts.machines.change(ref, body.change), parts.urls)


@router.delete("/machines/{id}", status_code=204, summary="Delete a machine")
async def delete_machine(
    ref: Ref, query: Annotated[queries.DeleteMachine, Query()], parts: TheParts
) -> Response:
    """Removes a machine and its disk. It must be pending, stopped or failed, unless forced."""
    await parts.machines.delete(ref, force=query.force)
    return Response(status_code=204)


@router.post("/machines/{id}/start", summary="Start a machine")
async def start_machine(ref: Ref, parts: TheParts, caller: TheCaller) -> MachineOut:
    """Answers when the machine runs, its agent has answered; at once when it already does."""
    return machine_out(await parts.machines.start(ref, key=caller), parts.urls)


@router.post("/machines/{id}/stop", summary="Stop a machine")
async def stop_machine(ref: Ref, parts: TheParts) -> MachineOut:
    """Answers when the machine is stopped; at once when it already is."""
    return machine_out(await parts.machines.stop(ref), parts.urls)


@router.post("/machines/{id}/restart", summary="Restart a machine")
async def restart_machine(ref: Ref, parts: TheParts, caller: TheCaller) -> MachineOut:
    """Stops the machine if it runs, starts it, and answers when it runs. Its disk stays.

    Several at once are one restart. A start that is under way is given up for it.
    """
    return machine_out(await parts.machines.restart(ref, key=caller), parts.urls)


@router.post("/machines/{id}/pause", summary="Pause a machine")
async def pause_machine(ref: Ref, parts: TheParts) -> MachineOut:
    """Has the machine stand still, with all that is in its memory. Its connections are closed."""
    return machine_out(await parts.machines.pause(ref), parts.urls)


@router.post("/machines/{id}/resume", summary="Resume a machine")
async def resume_machine(ref: Ref, parts: TheParts) -> MachineOut:
    """Has a paused machine run on where it stood, its clock set; at once when it runs."""
    return machine_out(await parts.machines.resume(ref), parts.urls)


@router.post("/machines/{id}/sleep", summary="Put a machine to sleep")
async def sleep_machine(ref: Ref, parts: TheParts) -> MachineOut:
    """Puts all that the machine has in memory on disk and gives the memory back.

    Its connections are closed. A start has it go on where it was, with its clock set; a restart
    boots it instead, and a stop throws away what was in memory.
    """
    return machine_out(await parts.machines.sleep(ref), parts.urls)


@router.get("/machines/{id}/wait", summary="Wait for a status")
async def wait_for_machine(
    ref: Ref, query: Annotated[queries.WaitForMachine, Query()], parts: TheParts
) -> MachineOut:
    """Answers when the machine has the status, or 504 when it has not in time."""
    machine = await parts.machines.wait(ref, query.status, query.timeout)
    return machine_out(machine, parts.urls)


@router.post("/machines/{id}/exec", summary="Run a process in a machine")
async def exec_in_machine(ref: Ref, body: requests.ExecInMachine, parts: TheParts) -> ExecOut:
    """Runs a program, not a shell, and answers when it has ended.

    At its time limit all its processes are killed, and the answer is 504 without output.

    A WebSocket on the same path carries a process while it runs: docs/reference/exec-stream.md.
    """
    request = ExecRequest(
        argv=body.argv,
        timeout=body.timeout,
        cwd=body.cwd,
        env=body.env,
        stdin=body.stdin.encode(),
        output_limit=parts.settings.hyperfleet_exec_output_bytes,
    )
    return exec_out(await parts.machines.exec(ref, request))


@router.get("/machines/{id}/ports", summary="Show a machine's ports")
async def machine_ports(ref: Ref, parts: TheParts) -> PortsOut:
    """Every exposed port with its URLs, and the ports that listen without being exposed."""
    exposed, unexposed = await parts.machines.ports(ref)
    return ports_out(parts.machines.get(ref).id, exposed, unexposed, parts.urls)


@router.get("/machines/{id}/activity", summary="Show what goes on in a machine")
async def machine_activity(ref: Ref, parts: TheParts) -> ActivityOut:
    """Connections and requests now, and when the last byte passed through the proxy."""
    return activity_out(await parts.machines.activity(ref))


@router.get(
    "/machines/{id}/logs", response_class=PlainTextResponse, summary="Read a machine's console"
)
async def machine_logs(
    request: Request, ref: Ref, query: Annotated[queries.ReadLogs, Query()], parts: TheParts
) -> Response:
    """What kernel and programs wrote to the serial port; bytes not UTF-8 become U+FFFD.

    With `follow=true` the answer goes on, through stops and starts, until the machine is deleted.
    """
    if query.follow:
        pieces = parts.machines.follow_console(ref, query.tail)
        return streams.Stream(request, parts, streams.text(pieces), media_type="text/plain")
    console = streams.text(parts.machines.console(ref, query.tail))
    return StreamingResponse(
        console, media_type="text/plain", headers={"X-Content-Type-Options": "nosniff"}
    )


def _spec(body: requests.CreateMachine, settings: Settings) -> MachineSpec:
    return MachineSpec(
        name=body.name,
        vcpu_count=body.vcpu_count,
        mem_size_mib=body.mem_size_mib,
        kernel_image_path=body.kernel_image_path or settings.hyperfleet_kernel_image_path,
        # An empty one is a choice: no arguments at all.
        kernel_args=settings.hyperfleet_kernel_args
        if body.kernel_args is None
        else body.kernel_args,
        rootfs_path=body.rootfs_path or settings.hyperfleet_rootfs_path,
        exposed_ports=tuple(body.exposed_ports),
        env=body.env,
        labels=body.labels,
        restart=body.restart,
        autostart=body.autostart,
        egress=egress_of(body.egress),
        sleep_after_s=body.sleep_after_s,
        cmd=tuple(body.cmd or ()),
        cwd=body.cwd,
        disk_size_mib=body.disk_size_mib,
        disks=disks_of(body.disks),
        port_options=port_options_of(body.port_options),
    )
