"""What the server answers, as values. Fields that a later server adds are passed over."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec


class Urls(msgspec.Struct, frozen=True):
    """The ways to a port; `host` is None without host routing."""

    path: str
    host: str | None


class Port(msgspec.Struct, frozen=True):
    """An exposed port as the server last saw it."""

    port: int
    listening: bool
    since: datetime | None
    address: str | None
    urls: Urls

    @property
    def url(self) -> str:
        """Where it is reached: by host where the server has a suffix for that, else by path."""
        return self.urls.host or self.urls.path


class UnexposedPort(msgspec.Struct, frozen=True):
    """A port that listens and is not exposed."""

    port: int
    address: str


class Ports(msgspec.Struct, frozen=True):
    """The ports of a machine."""

    ports: tuple[Port, ...]
    unexposed: tuple[UnexposedPort, ...]


class Activity(msgspec.Struct, frozen=True):
    """What goes on between clients and a machine now, and when the last byte passed."""

    connections: int
    requests_in_flight: int
    tunnels: int
    last_activity_at: datetime | None


class Network(msgspec.Struct, frozen=True):
    """How a machine is attached."""

    mode: str
    guest_ip: str | None
    guest_mac: str | None
    tap_device: str | None
    tap_ip: str | None


class EgressRule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a machine may connect to: an IPv4 network, and there to some ports or to all.

    `protocol` is `tcp` or `udp`; None: both, and without `ports` every other one as well.
    """

    network: str
    protocol: Literal["tcp", "udp"] | None = None
    ports: tuple[int, ...] = ()


Egress = Literal["all", "none"] | tuple[EgressRule, ...]


class Start(msgspec.Struct, frozen=True):
    """How a start went. `how`: boot, template or memory; `note`: why it booted all the same."""

    how: str
    duration_ms: int
    note: str | None = None


class CommandState(msgspec.Struct, frozen=True):
    """How it stands with a machine's command.

    `state`: running, waiting (it is started again in a while), exited. `exit_code` and `signal` are
    of its last end; None: it has not ended yet.
    """

    state: str
    exit_code: int | None
    signal: str | None
    restarts: int


class MachineDisk(msgspec.Struct, frozen=True):
    """A data disk, by its name, and the folder of the machine where it is mounted."""

    disk: str
    path: str


class PortOptions(msgspec.Struct, frozen=True):
    """How requests go to an exposed port.

    `host`: what its server gets as `Host`, None: what the client sent. `strip_prefix`: by path,
    whether the proxy cuts its prefix off.
    """

    host: str | None = None
    strip_prefix: bool = True


class Machine(msgspec.Struct, frozen=True):
    """A machine as it stood when the server answered."""

    id: str
    name: str
    status: str
    vcpu_count: int
    mem_size_mib: int
    kernel_image_path: str
    kernel_args: str | None
    rootfs_path: str
    exposed_ports: tuple[int, ...]
    labels: dict[str, str]
    vmm: str
    network: Network
    ports: tuple[Port, ...]
    pid: int | None
    error_message: str | None
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    # An older server tells none of these.
    restart: str = "never"
    autostart: bool = False
    restarts: int = 0
    next_start_at: datetime | None = None
    guest_fault: str | None = None
    stalled: str | None = None
    last_start: Start | None = None
    egress: Egress = "all"
    sleep_after_s: int = 0
    cmd: tuple[str, ...] | None = None
    cwd: str | None = None
    disk_size_mib: int | None = None
    disks: tuple[MachineDisk, ...] = ()
    command: CommandState | None = None
    port_options: dict[int, PortOptions] = {}


class DiskMachine(msgspec.Struct, frozen=True):
    """The machine that has a data disk."""

    id: str
    name: str | None


class Disk(msgspec.Struct, frozen=True):
    """A data disk, which outlives machines. `host_bytes`: what it takes of the host's disk."""

    name: str
    size_mib: int
    host_bytes: int
    machine: DiskMachine | None
    vmm: str
    created_at: datetime


class DiskPage(msgspec.Struct, frozen=True):
    """Data disks, the oldest first."""

    disks: tuple[Disk, ...]


class DiskUsage(msgspec.Struct, frozen=True):
    """How full a disk of a machine is; `disk`: a data disk's name, None: its own.

    `size_bytes` and `used_bytes` are None while nobody can tell.
    """

    disk: str | None
    path: str
    size_bytes: int | None
    used_bytes: int | None
    host_bytes: int


class DiskUsages(msgspec.Struct, frozen=True):
    """The disks of a machine, its own first."""

    disks: tuple[DiskUsage, ...]


class SnapshotMachine(msgspec.Struct, frozen=True):
    """The machine of which a snapshot was made, as it was called then; it may be gone."""

    id: str
    name: str


class Snapshot(msgspec.Struct, frozen=True):
    """A machine as it was: its disk, and with `memory` what it had in that."""

    name: str
    machine: SnapshotMachine
    memory: bool
    vcpu_count: int
    mem_size_mib: int
    rootfs_path: str
    vmm: str
    size_bytes: int
    created_at: datetime


class SnapshotPage(msgspec.Struct, frozen=True):
    """Snapshots, the oldest first."""

    snapshots: tuple[Snapshot, ...]


class Template(msgspec.Struct, frozen=True):
    """What machines of a shape are started from; `size_bytes`: of disk, and of memory once used."""

    id: str
    kernel_image_path: str
    kernel_args: str | None
    vcpu_count: int
    mem_size_mib: int
    size_bytes: int
    made_in_ms: int
    made_at: datetime
    used_at: datetime


class TemplatePage(msgspec.Struct, frozen=True):
    """Every template, the last used first."""

    templates: tuple[Template, ...]


class MachinePage(msgspec.Struct, frozen=True):
    """Some of the machines, and how many there are."""

    machines: tuple[Machine, ...]
    total: int


class EventMachine(msgspec.Struct, frozen=True):
    """Whose event it is."""

    id: str
    name: str


class Event(msgspec.Struct, frozen=True):
    """Something that has happened to a machine; see docs/reference/events.md."""

    id: str
    type: str
    at: datetime
    cause: str
    machine: EventMachine
    status: str
    before: str | None = None
    message: str | None = None
    port: Port | None = None
    fields: tuple[str, ...] = ()
    command: CommandState | None = None


class FileInfo(msgspec.Struct, frozen=True):
    """What is at a path. `type`: file, folder, link, other; `mode` in octal; `owner`: UID:GID.

    `size` in bytes, None where it is not known before it is read; `modified`: seconds since 1970,
    UTC; `target`: where a symbolic link leads.
    """

    name: str
    type: str
    size: int | None
    mode: str
    owner: str
    modified: int
    target: str | None = None


class Folder(msgspec.Struct, frozen=True):
    """What is in a folder, by name; `truncated`: there is more."""

    entries: tuple[FileInfo, ...]
    truncated: bool


class ExecResult(msgspec.Struct, frozen=True):
    """How a process ended."""

    exit_code: int
    signal: str | None
    stdout: str
    stderr: str
    truncated: bool
    duration_ms: int


class Process(msgspec.Struct, frozen=True):
    """A process that has a name.

    `argv`: the first 4 KiB of it; `exit_code` and `signal`: None while it runs; `untaken`: bytes of
    output that nobody has taken, `dropped`: how many right before these are lost.
    """

    name: str
    argv: tuple[str, ...]
    since: datetime
    attached: bool
    terminal: bool
    exit_code: int | None
    signal: str | None
    untaken: int
    dropped: int


class ProcessPage(msgspec.Struct, frozen=True):
    """Every process of a machine that has a name, the oldest first."""

    processes: tuple[Process, ...]


class Key(msgspec.Struct, frozen=True):
    """A key as listed, without the secret."""

    id: str
    name: str
    prefix: str
    scopes: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None


class KeyPage(msgspec.Struct, frozen=True):
    """Every key that is not revoked."""

    keys: tuple[Key, ...]


class NewKey(msgspec.Struct, frozen=True):
    """A key just made; `key` is the secret, shown this once."""

    id: str
    key: str
    name: str
    prefix: str
    scopes: tuple[str, ...]
    expires_at: datetime | None


class Health(msgspec.Struct, frozen=True):
    """`ok`, or `ready`."""

    status: str
