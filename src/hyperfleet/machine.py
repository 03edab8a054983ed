"""A machine and what is asked of one: plain values, no behaviour, no I/O."""

from __future__ import annotations

import re
import secrets
import string
from datetime import datetime
from enum import StrEnum
from typing import Literal

import msgspec

from hyperfleet.lifecycle import Status

ID_ALPHABET = string.digits + string.ascii_lowercase
ID_LENGTH = 12
ID_PATTERN = re.compile(r"[0-9a-z]{12}\Z")
# A DNS label (RFC 1123), lower case. Names end up in host names: `{name}-{port}.suffix`.
NAME_PATTERN = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\Z")


def new_machine_id() -> str:
    """A fresh id: 12 of 0-9a-z from the system's CSPRNG (62 bits)."""
    return "".join(secrets.choice(ID_ALPHABET) for _ in range(ID_LENGTH))


class Restart(StrEnum):
    """When a machine, or its command, that ended without its user's wish is started again."""

    NEVER = "never"
    # It died; not when the guest has powered itself off.
    ON_FAILURE = "on-failure"
    ALWAYS = "always"


class EgressRule(msgspec.Struct, frozen=True, kw_only=True):
    """Where a machine may connect to: an IPv4 network, and there to some ports or to all.

    `protocol` is `tcp` or `udp`; None: both, and without `ports` every other one as well.
    """

    network: str
    protocol: Literal["tcp", "udp"] | None = None
    ports: tuple[int, ...] = ()


# Whom a machine may speak to by itself, beyond the host: everybody, nobody, or what rules say.
Egress = Literal["all", "none"] | tuple[EgressRule, ...]


class MachineDisk(msgspec.Struct, frozen=True, kw_only=True):
    """A data disk, by its name, and where the guest mounts it."""

    disk: str
    path: str


class PortOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How requests go to an exposed port.

    `host`: what its server gets as `Host`, None: what the client sent. `strip_prefix`: by path,
    whether the path goes there without the proxy's prefix.
    """

    port: int
    host: str | None = None
    strip_prefix: bool = True


class MachineSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a user asks for; defaults already filled in, every field already checked."""

    name: str
    vcpu_count: int
    mem_size_mib: int
    kernel_image_path: str
    kernel_args: str | None = None
    rootfs_path: str
    exposed_ports: tuple[int, ...] = ()
    env: dict[str, str] = {}
    labels: dict[str, str] = {}
    restart: Restart = Restart.NEVER
    # Comes up with the control plane when it ran before, a reboot of the host included.
    autostart: bool = False
    egress: Egress = "all"
    # Seconds without use after which it sleeps; 0: it never does by itself.
    sleep_after_s: int = 0
    # The command that its guest runs from its start on, and the folder; none if it is empty.
    cmd: tuple[str, ...] = ()
    cwd: str | None = None
    # Of its own disk; None: as large as its image.
    disk_size_mib: int | None = None
    disks: tuple[MachineDisk, ...] = ()
    # Of exposed ports, in their order; a port that is treated as usual is not there.
    port_options: tuple[PortOptions, ...] = ()


class MachineChange(msgspec.Struct, frozen=True, kw_only=True):
    """What may be changed of a machine that is there; None: it stays. Else it is the whole new one.

    Each is checked as in `MachineSpec`.
    """

    exposed_ports: tuple[int, ...] | None = None
    labels: dict[str, str] | None = None
    restart: Restart | None = None
    autostart: bool | None = None
    egress: Egress | None = None
    # 0: it never sleeps by itself.
    sleep_after_s: int | None = None
    disks: tuple[MachineDisk, ...] | None = None
    # None: those of ports that are exposed no longer go with them.
    port_options: tuple[PortOptions, ...] | None = None


class MachineNetwork(msgspec.Struct, frozen=True, kw_only=True):
    """How a machine is attached. `mode` is `user` or `tap`; tap_* are None for `user`."""

    mode: str
    guest_ip: str | None = None
    guest_mac: str | None = None
    tap_device: str | None = None
    tap_ip: str | None = None


class ExposedPort(msgspec.Struct, frozen=True, kw_only=True):
    """An exposed port as discovery last saw it.

    `address` is what the server in the guest is bound to (None: nothing listens), `upstream` the
    host's `ADDRESS:PORT` that leads to it (None: none is made yet), `since` when it was first
    seen listening.
    """

    port: int
    listening: bool = False
    since: datetime | None = None
    address: str | None = None
    upstream: str | None = None


class How(StrEnum):
    """What a machine was started from."""

    BOOT = "boot"
    # As a clone of one.
    TEMPLATE = "template"
    # It slept, and goes on where it was.
    MEMORY = "memory"


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """How a start went. `duration_ms`: from its turn to boot until the machine could be used.

    `note`: why it booted, although there was a template or memory.
    """

    how: How
    duration_ms: int
    note: str | None = None


class Machine(msgspec.Struct, frozen=True, kw_only=True, weakref=True):
    """A machine as it stands. Times are aware, UTC."""

    id: str
    spec: MachineSpec
    status: Status
    vmm: str
    network: MachineNetwork
    ports: tuple[ExposedPort, ...] = ()
    pid: int | None = None
    # Counts starts; connections to another lifecycle's guest are never reused.
    lifecycle: int = 0
    error_message: str | None = None
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None = None
    # How often it was started by itself since its user started it, or since it last ran long enough
    # to be called sound.
    restarts: int = 0
    # When it is started by itself; None: it is not.
    next_start_at: datetime | None = None
    # The host's boot (random(4), boot_id) in which it was last started.
    host_boot: str | None = None
    # What its guest last did against the agent's protocol since it was last started; None: nothing.
    guest_fault: str | None = None
    # None: it never came up.
    last_start: Start | None = None
    # None: it has none, or nothing was told of it since the machine was last started.
    command: CommandState | None = None
    # Why it stands still for a while although it runs; None: it does not. Not recorded.
    stalled: str | None = None


class CommandPhase(StrEnum):
    """What a machine's command does."""

    RUNNING = "running"
    # It has ended, and is started again in a while.
    WAITING = "waiting"
    # It has ended, and stays so.
    EXITED = "exited"


class CommandState(msgspec.Struct, frozen=True, kw_only=True):
    """How it stands with a machine's command, as its guest last told.

    `exit_code` (128 + n for signal n, 127 or 126 for what can't be started) and `signal` are of its
    last end; None: it has not ended yet. `restarts`: how often it was started again.
    """

    state: CommandPhase
    exit_code: int | None = None
    signal: str | None = None
    restarts: int = 0


class TemplateInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What machines of one shape are started from, so that they need not boot.

    `size_bytes`: what it takes of the disk, and of memory once it is used. `used_at`: when the last
    clone was made of it, or it itself was.
    """

    id: str
    kernel_image_path: str
    kernel_args: str | None
    vcpu_count: int
    mem_size_mib: int
    size_bytes: int
    made_in_ms: int
    made_at: datetime
    used_at: datetime


class SnapshotInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A machine as it was at one moment, kept under a name: its disk, and its memory if it had any.

    `spec`, `network`: the machine's then. `size_bytes`: what it takes of the host's disk.
    """

    name: str
    machine_id: str
    spec: MachineSpec
    vmm: str
    network: MachineNetwork
    has_memory: bool
    size_bytes: int
    made_at: datetime


class DiskInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A data disk: it outlives machines. `id` is what a guest finds it by."""

    name: str
    id: str
    vmm: str
    made_at: datetime


class DataDiskState(msgspec.Struct, frozen=True, kw_only=True):
    """A data disk as it stands. Bytes: `size` it can hold, `host` it takes of the host's disk.

    `machine_id`: that has it; None: none does.
    """

    info: DiskInfo
    size: int
    host: int
    machine_id: str | None
    machine_name: str | None


class DiskUsage(msgspec.Struct, frozen=True, kw_only=True):
    """A disk of a machine's: `disk` is a data disk's name, None: its own.

    Bytes: `size` it can hold, `used` of its file system (both None while nobody can tell), `host`
    that it takes of the host's disk.
    """

    disk: str | None
    path: str
    size: int | None
    used: int | None
    host: int


class EventKind(StrEnum):
    """What has happened to a machine."""

    CREATED = "created"
    # Another status.
    STATUS = "status"
    # A server listens at an exposed port, at another address, or not any more.
    PORT = "port"
    # Something of its spec.
    CHANGED = "changed"
    # Its guest has broken the agent's protocol.
    FAULT = "fault"
    # Its command is not as it was.
    COMMAND = "command"
    # It stands still by itself, or goes on.
    STALLED = "stalled"
    DELETED = "deleted"


class Cause(StrEnum):
    """Why it has."""

    # Somebody asked for it.
    REQUEST = "request"
    # Its process or its guest did it.
    MACHINE = "machine"
    # Its rule of restart, or that it comes up with the server.
    POLICY = "policy"
    # A look at its ports.
    DISCOVERY = "discovery"
    # The control plane found it so when it started, or completes what one before it began.
    ADOPTION = "adoption"


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that has happened to a machine, and the machine's status since.

    `id` is for asking what came after it. `before`: of STATUS, what it was. `message`: why it
    failed or stands still, or what its guest did. `port`: of PORT, as it is now. `fields`: of
    CHANGED, of its spec. `command`: of COMMAND, as it is now.
    """

    id: str
    kind: EventKind
    at: datetime
    cause: Cause
    machine_id: str
    machine_name: str
    status: Status
    before: Status | None = None
    message: str | None = None
    port: ExposedPort | None = None
    fields: tuple[str, ...] = ()
    command: CommandState | None = None
