"""What is answered: the JSON of machines, ports and keys, and how it is made from theirs."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from datetime import datetime
from typing import Literal

import msgspec
from pydantic import BaseModel, Field

from hyperfleet.api.attached import MachineDiskOut, disks_out
from hyperfleet.api.egress import EgressOut, egress_out
from hyperfleet.api.port_options import PortOptionsOut, port_options_out
from hyperfleet.auth.keyring import Issued
from hyperfleet.auth.keys import Key, Scope
from hyperfleet.guest.values import ExecResult, FileInfo, Listener
from hyperfleet.lifecycle import Status
from hyperfleet.machine import (
    Cause,
    CommandPhase,
    CommandState,
    Event,
    EventKind,
    ExposedPort,
    How,
    Machine,
    Restart,
    TemplateInfo,
)
from hyperfleet.proxy.interface import Activity
from hyperfleet.settings import Settings


class UrlsOut(BaseModel):
    path: str = Field(description="The port's URL by path.")
    host: str | None = Field(description="Its URL by host; null without PROXY_HOST_SUFFIX.")


class PortOut(BaseModel):
    port: int
    listening: bool = Field(description="Whether a server listened at the last look.")
    since: datetime | None = Field(description="Since when it was seen listening.")
    address: str | None = Field(description="What the server is bound to in the guest.")
    urls: UrlsOut


class UnexposedOut(BaseModel):
    port: int
    address: str


class PortsOut(BaseModel):
    ports: list[PortOut] = Field(description="Every exposed port.")
    unexposed: list[UnexposedOut] = Field(description="Ports that listen and are not exposed.")


class ActivityOut(BaseModel):
    connections: int = Field(
        description="The proxy's connections to the machine, idle ones among them."
    )
    requests_in_flight: int = Field(
        description="Requests that are not answered whole yet, tunnels among them."
    )
    tunnels: int = Field(description="WebSockets and other tunnels that are open.")
    last_activity_at: datetime | None = Field(
        description="When the last byte of a request, a response or a tunnel passed, to a tenth of"
        " a second; null: none has since the data plane started."
    )


class NetworkOut(BaseModel):
    mode: str
    guest_ip: str | None
    guest_mac: str | None
    tap_device: str | None
    tap_ip: str | None


class StartOut(BaseModel):
    how: How = Field(
        description="boot; template: as a clone of one; memory: it slept, and goes on from there."
    )
    duration_ms: int = Field(
        description="From its turn to boot until it could be used, milliseconds."
    )
    note: str | None = Field(
        description="Why it booted although there was a template or memory; null: no such thing."
    )


class CommandOut(BaseModel):
    state: CommandPhase = Field(
        description="running; waiting: it has ended and is started again in a while; exited."
    )
    exit_code: int | None = Field(
        description="Of its last end; 127: no such program, 126: it can't be started, 128 + n: "
        "killed by signal n; null: it has not ended yet."
    )
    signal: str | None = Field(description="The signal's name without SIG, KILL say.")
    restarts: int = Field(description="How often it was started again since the machine's start.")


class TemplateOut(BaseModel):
    id: str
    kernel_image_path: str
    kernel_args: str | None
    vcpu_count: int
    mem_size_mib: int
    size_bytes: int = Field(description="What it takes on disk, and of memory once it is used.")
    made_in_ms: int
    made_at: datetime
    used_at: datetime = Field(description="When a machine was last started from it.")


class TemplatesOut(BaseModel):
    templates: list[TemplateOut] = Field(description="The last used first.")


class MachineOut(BaseModel):
    id: str
    name: str
    status: Status
    vcpu_count: int
    mem_size_mib: int
    kernel_image_path: str
    kernel_args: str | None
    rootfs_path: str
    exposed_ports: list[int]
    port_options: dict[str, PortOptionsOut] = Field(
        description="Of exposed ports that are not treated as usual, by their numbers."
    )
    labels: dict[str, str]
    restart: Restart = Field(description="When it is started again after it ended by itself.")
    autostart: bool = Field(description="Whether it comes up with the server if it ran before.")
    egress: EgressOut = Field(description="Whom it may speak to by itself, beyond the host.")
    sleep_after_s: int = Field(
        description="Seconds without use after which it sleeps; 0: it never does by itself."
    )
    cmd: list[str] | None = Field(description="The command that it runs from its start on.")
    cwd: str | None = Field(description="Where it does; null: in /.")
    disk_size_mib: int | None = Field(
        description="Of its own disk; null: as large as its root disk's image."
    )
    disks: list[MachineDiskOut] = Field(description="Its data disks, and where they are mounted.")
    vmm: str
    network: NetworkOut
    ports: list[PortOut]
    pid: int | None
    error_message: str | None
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    restarts: int = Field(
        description="How often it was started by itself since its user started it, or since it "
        "last ran for HYPERFLEET_RESTART_CALM_MS."
    )
    next_start_at: datetime | None = Field(
        description="When it is started by itself; null: it is not."
    )
    guest_fault: str | None = Field(
        description="What its guest last did against the protocol of the agent, for which its "
        "channel was closed, since it was last started; null: nothing."
    )
    stalled: str | None = Field(
        description="Why it stands still although it runs, such as for want of room on the host's "
        "disk; null: it does not."
    )
    last_start: StartOut | None = Field(
        description="How its last start went; null: it never came up."
    )
    command: CommandOut | None = Field(
        description="How it stands with its `cmd`, as its guest last told; null: it has none, or "
        "nothing was told since its last start."
    )


class MachinesOut(BaseModel):
    machines: list[MachineOut]
    total: int = Field(description="How many there are, whatever limit and offset.")


class ExecOut(BaseModel):
    exit_code: int = Field(description="127: no such program; 128 + n: killed by signal n.")
    signal: str | None = Field(description="The signal's name without SIG, KILL say.")
    stdout: str
    stderr: str
    truncated: bool = Field(description="Whether more was written than is kept.")
    duration_ms: int


class KeyOut(BaseModel):
    id: str
    name: str
    prefix: str = Field(description="The key's first 11 characters.")
    scopes: list[Scope]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None = Field(description="To the minute.")


class KeysOut(BaseModel):
    keys: list[KeyOut]


class NewKeyOut(BaseModel):
    id: str
    key: str = Field(description="The key itself, never shown again.")
    name: str
    prefix: str
    scopes: list[Scope]
    expires_at: datetime | None


class HealthOut(BaseModel):
    status: str


class ErrorDetail(BaseModel):
    code: str
    message: str


class ErrorOut(BaseModel):
    error: ErrorDetail


class FileOut(BaseModel):
    name: str = Field(description="Within its folder; bytes not UTF-8 became U+FFFD.")
    type: Literal["file", "folder", "link", "other"]
    size: int | None = Field(description="In bytes; null: not known before it is read.")
    mode: str = Field(description="Permission bits in octal, such as 0644.")
    owner: str = Field(description="User and group id, such as 0:0.")
    modified: int = Field(description="Seconds since 1970, UTC.")
    target: str | None = Field(description="Where a symbolic link leads.")


class FolderOut(BaseModel):
    entries: list[FileOut] = Field(description="By name; links are not followed.")
    truncated: bool = Field(description="Whether there are more than are listed.")


class EventMachine(BaseModel):
    id: str
    name: str


class EventOut(BaseModel):
    id: str
    type: EventKind
    at: datetime
    cause: Cause
    machine: EventMachine
    status: Status
    before: Status | None
    message: str | None
    port: PortOut | None
    fields: list[str] | None
    command: CommandOut | None


class Urls(msgspec.Struct, frozen=True):
    """Where the proxy is, for the links in answers."""

    host: str
    port: int
    prefix: str
    suffix: str | None

    @classmethod
    def of(cls, settings: Settings, port: int) -> Urls:
        """From the settings and the port that the proxy really has."""
        bind = settings.proxy_bind
        address = ipaddress.ip_address(bind)
        if address.is_unspecified or bind == "127.0.0.1":
            bind = "localhost"
        elif address.version == 6:  # noqa: PLR2004
            bind = f"[{bind}]"
        return cls(bind, port, settings.proxy_prefix, settings.proxy_host_suffix)

    def base(self) -> str:
        """The proxy's own URL, without a slash at its end."""
        return f"http://{self.host}:{self.port}"

    def to(self, machine_id: str, port: int) -> UrlsOut:
        """The ways to a machine's port."""
        by_host = None
        if self.suffix is not None:
            by_host = f"http://{machine_id}-{port}{self.suffix}:{self.port}/"
        return UrlsOut(path=f"{self.base()}{self.prefix}/{machine_id}/{port}/", host=by_host)


def machine_out(machine: Machine, urls: Urls) -> MachineOut:
    """A machine as the API shows it: `env`, which may hold secrets, is not."""
    spec = machine.spec
    return MachineOut(
        id=machine.id,
        name=spec.name,
        status=machine.status,
        vcpu_count=spec.vcpu_count,
        mem_size_mib=spec.mem_size_mib,
        kernel_image_path=spec.kernel_image_path,
        kernel_args=spec.kernel_args,
        rootfs_path=spec.rootfs_path,
        exposed_ports=list(spec.exposed_ports),
        port_options=port_options_out(spec.port_options),
        labels=spec.labels,
        restart=spec.restart,
        autostart=spec.autostart,
        egress=egress_out(spec.egress),
        sleep_after_s=spec.sleep_after_s,
        cmd=list(spec.cmd) or None,
        cwd=spec.cwd,
        disk_size_mib=spec.disk_size_mib,
        disks=disks_out(spec.disks),
        vmm=machine.vmm,
        network=NetworkOut(**msgspec.to_builtins(machine.network)),
        ports=[_port_out(machine.id, port, urls) for port in machine.ports],
        pid=machine.pid,
        error_message=machine.error_message,
        created_at=machine.created_at,
        updated_at=machine.updated_at,
        started_at=machine.started_at,
        restarts=machine.restarts,
        next_start_at=machine.next_start_at,
        guest_fault=machine.guest_fault,
        stalled=machine.stalled,
        last_start=(
            None
            if machine.last_start is None
            else StartOut(**msgspec.to_builtins(machine.last_start))
        ),
        command=_command_out(machine.command),
    )


def templates_out(templates: Sequence[TemplateInfo]) -> TemplatesOut:
    """Templates as the API shows them."""
    return TemplatesOut(
        templates=[TemplateOut(**msgspec.structs.asdict(template)) for template in templates]
    )


def ports_out(
    machine_id: str, exposed: Sequence[ExposedPort], unexposed: Sequence[Listener], urls: Urls
) -> PortsOut:
    """The ports of one machine."""
    return PortsOut(
        ports=[_port_out(machine_id, port, urls) for port in exposed],
        unexposed=[
            UnexposedOut(port=listener.port, address=listener.address) for listener in unexposed
        ],
    )


def activity_out(activity: Activity) -> ActivityOut:
    """What goes on between clients and a machine."""
    return ActivityOut(
        connections=activity.connections,
        requests_in_flight=activity.requests_in_flight,
        tunnels=activity.tunnels,
        last_activity_at=activity.last_at,
    )


def exec_out(result: ExecResult) -> ExecOut:
    """How a process ended; bytes that are not UTF-8 become U+FFFD."""
    return ExecOut(
        exit_code=result.exit_code,
        signal=result.signal,
        stdout=result.stdout.decode("utf-8", "replace"),
        stderr=result.stderr.decode("utf-8", "replace"),
        truncated=result.truncated,
        duration_ms=result.duration_ms,
    )


def key_out(key: Key) -> KeyOut:
    """A key as it may be listed."""
    return KeyOut(
        id=key.id,
        name=key.name,
        prefix=key.prefix,
        scopes=list(key.scopes),
        created_at=key.created_at,
        expires_at=key.expires_at,
        last_used_at=key.last_used_at,
    )


def new_key_out(issued: Issued) -> NewKeyOut:
    """A key just made, this once with its secret."""
    key = issued.key
    return NewKeyOut(
        id=key.id,
        key=issued.secret,
        name=key.name,
        prefix=key.prefix,
        scopes=list(key.scopes),
        expires_at=key.expires_at,
    )


def _command_out(command: CommandState | None) -> CommandOut | None:
    return None if command is None else CommandOut(**msgspec.structs.asdict(command))


def _port_out(machine_id: str, port: ExposedPort, urls: Urls) -> PortOut:
    return PortOut(
        port=port.port,
        listening=port.listening,
        since=port.since,
        address=port.address,
        urls=urls.to(machine_id, port.port),
    )


def file_out(info: FileInfo) -> FileOut:
    """What is at a path."""
    return FileOut(
        name=info.name,
        type=info.kind,  # type: ignore[arg-type]
        size=info.size,
        mode=f"{info.mode:04o}",
        owner=f"{info.uid}:{info.gid}",
        modified=info.mtime,
        target=info.target,
    )


def event_out(event: Event, urls: Urls) -> EventOut:
    """An event; what does not belong to its type is None."""
    return EventOut(
        id=event.id,
        type=event.kind,
        at=event.at,
        cause=event.cause,
        machine=EventMachine(id=event.machine_id, name=event.machine_name),
        status=event.status,
        before=event.before,
        message=event.message,
        port=None if event.port is None else _port_out(event.machine_id, event.port, urls),
        fields=list(event.fields) or None,
        command=_command_out(event.command),
    )
