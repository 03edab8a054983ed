"""What is asked of a guest and what it says: plain values, shared by every agent client."""

from __future__ import annotations

from datetime import datetime

import msgspec

from hyperfleet.machine import CommandState


class ExecRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One process to run; `timeout` in seconds; `stdin` whole, empty by default."""

    argv: tuple[str, ...]
    timeout: float = 30.0
    cwd: str | None = None
    env: dict[str, str] = {}
    stdin: bytes = b""
    output_limit: int = 8 * 1024 * 1024


class ExecResult(msgspec.Struct, frozen=True, kw_only=True):
    """How it ended. `exit_code` is 127 for a program that is missing, 128 + n for signal n."""

    exit_code: int
    signal: str | None
    stdout: bytes
    stderr: bytes
    truncated: bool
    duration_ms: int


class ProcessRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One process whose streams are carried while it runs.

    `terminal`: (rows, columns) of the one that it gets; all its output is then standard output.
    `stdin`: whether input follows; else it is empty, or a terminal without keys. `timeout` in
    seconds, None: it runs as long as it likes. `name`: it is kept under that, a DNS label, when
    nobody takes its output any more.
    """

    argv: tuple[str, ...]
    cwd: str | None = None
    env: dict[str, str] = {}
    stdin: bool = True
    terminal: tuple[int, int] | None = None
    timeout: float | None = None
    name: str | None = None


class Attachment(msgspec.Struct, frozen=True, kw_only=True):
    """How a process that has a name was found by who attaches.

    `offset`: bytes of its output before what is read first; `dropped`: how many of them, the last
    ones, nobody has read. `stdin`: whether it takes input; `terminal`: whether it is at one.
    """

    offset: int
    dropped: int
    stdin: bool
    terminal: bool


class KeptProcess(msgspec.Struct, frozen=True, kw_only=True):
    """A process that has a name, by its guest's words.

    `argv`: the first of its arguments; `since`: when it was started; `exit_code` and `signal`: None
    while it runs; `untaken`: bytes of output that nobody has taken; `dropped`: how many right
    before them are lost.
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


class Piece(msgspec.Struct, frozen=True, kw_only=True):
    """Some output of a process, of its standard error or of its standard output."""

    data: bytes
    is_error: bool


class ProcessEnd(msgspec.Struct, frozen=True, kw_only=True):
    """How a process ended. `exit_code` is as in `ExecResult`; `timed_out`: its time was over."""

    exit_code: int
    signal: str | None
    timed_out: bool = False
    truncated: bool = False


class FileInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What is at a path. `kind`: file, folder, link, other.

    `size` in bytes, None where it is not known before it is read; `mode`: permission bits; `mtime`:
    seconds since 1970, UTC; `target`: where a symbolic link leads.
    """

    name: str
    kind: str
    size: int | None
    mode: int
    uid: int
    gid: int
    mtime: int
    target: str | None = None


class Mount(msgspec.Struct, frozen=True, kw_only=True):
    """A disk to mount besides the root disk: by its `serial` number, at `path`."""

    serial: str
    path: str


class Listener(msgspec.Struct, frozen=True, kw_only=True):
    """A listening TCP socket in the guest; `direct`: reached on the guest's own address."""

    port: int
    address: str
    direct: bool


class GuestNetwork(msgspec.Struct, frozen=True, kw_only=True):
    """A card of the guest's: `address` with prefix length, `10.0.2.15/24`.

    `mac`: which card; None: there is one. `found_as`: if no card has it, the one that has this
    address is to have it; a clone's has its template's. `outward`: what another card is to have, if
    the guest has it: default route and resolvers are then that one's alone.
    """

    address: str
    gateway: str | None = None
    dns: tuple[str, ...] = ()
    mac: str | None = None
    found_as: str | None = None
    outward: GuestNetwork | None = None


class News(msgspec.Struct, frozen=True, kw_only=True):
    """What a guest tells when something has happened: how much has, and its command's state."""

    number: int
    command: CommandState | None = None
