"""What the API asks of the fleet; `hyperfleet.fleet.Fleet` is one."""

from __future__ import annotations

import builtins
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from hyperfleet.guest.values import (
    Attachment,
    ExecRequest,
    ExecResult,
    FileInfo,
    KeptProcess,
    Listener,
    Piece,
    ProcessEnd,
    ProcessRequest,
)
from hyperfleet.lifecycle import Status
from hyperfleet.machine import (
    DataDiskState,
    DiskUsage,
    Event,
    ExposedPort,
    Machine,
    MachineChange,
    MachineSpec,
    SnapshotInfo,
    TemplateInfo,
)
from hyperfleet.proxy.interface import Activity


class ProcessStream(Protocol):
    """A process in a machine while it runs. When it can't be reached any more: GuestError.

    One that has a name is kept when it is abandoned, and what was not taken comes again.
    """

    async def attached(self) -> Attachment | None:
        """How one that has a name was found; None: it has none, or could not be run.

        Raises:
            NotFoundError: there is no process of that name.
            ConflictError: there is one already, or another client has attached since.
        """

    async def read(self) -> Piece | None:
        """The next piece of its output; None when there will be no more."""

    async def ended(self) -> ProcessEnd:
        """How it ended, when all its output was read."""

    async def write(self, data: bytes, *, eof: bool = False) -> None:
        """Gives it input, the last with `eof`; returns when it may have more."""

    def release(self) -> bool:
        """Its client has gone: whether what it has sent is to be written still.

        Then nothing that is written waits until the process reads.
        """

    def resize(self, rows: int, columns: int) -> None:
        """Sets the size of its terminal, if it has one."""

    def signal(self, number: int) -> None:
        """Signals its process group."""

    def taken(self, count: int) -> None:
        """So much of what was read is not needed again; ValidationError: it is more than that."""

    def end_taken(self) -> None:
        """Nor is its end."""

    async def abandon(self) -> None:
        """Ends it if it has not ended, with all that nobody reads of it; never raises."""


class Processes(Protocol):
    """Of one machine; InvalidStateError unless it runs, GuestError."""

    async def run(self, request: ProcessRequest) -> ProcessStream:
        """Runs one whose streams are carried."""

    async def attach(self, name: str) -> ProcessStream:
        """Goes on with one that is kept; whoever has its stream loses it."""

    async def kept(self) -> builtins.list[KeptProcess]:
        """Those that have a name, the oldest first."""

    async def forget(self, name: str) -> None:
        """Kills one of them; NotFoundError."""


class Contents(Protocol):
    """A file, or a folder as a tar: what it is, then its bytes, once."""

    @property
    def info(self) -> FileInfo:
        """Of the file or the folder."""

    @property
    def size(self) -> int | None:
        """Of all that `pieces` gives; None: it is not known before."""

    def pieces(self) -> AsyncIterator[bytes]:
        """All of it; GuestError when it has not come whole."""

    async def close(self) -> None:
        """Nobody wants the rest."""


class Listing(Protocol):
    """A folder and what is in it, by name."""

    @property
    def folder(self) -> FileInfo:
        """The folder itself."""

    @property
    def entries(self) -> Sequence[FileInfo]:
        """What is in it."""

    @property
    def truncated(self) -> bool:
        """Whether there is more."""


class Files(Protocol):
    """On a machine's disk; paths begin with /.

    NotFoundError: there is nothing; ConflictError: a folder where it may be none, or none where one
    is needed, or one that is not empty; ValidationError: no file system has that; GuestError.
    """

    async def get(self, path: str) -> Contents:
        """A file's bytes."""

    async def pack(self, path: str) -> Contents:
        """A folder as a tar."""

    async def put(
        self,
        path: str,
        content: AsyncIterable[bytes],
        *,
        size: int | None,
        mode: int | None,
        owner: tuple[int, int] | None,
        parents: bool,
    ) -> FileInfo:
        """Makes a file, whole or not at all; what is None is as it was before."""

    async def unpack(self, path: str, content: AsyncIterable[bytes]) -> None:
        """Makes what a tar holds in a folder."""

    async def stat(self, path: str) -> FileInfo:
        """What is at a path, links followed."""

    async def list(self, path: str) -> Listing:
        """What is in a folder."""

    async def delete(self, path: str, *, whole: bool) -> None:
        """Removes a file, an empty folder, or with `whole` all that is in one."""


class Disks(Protocol):
    """Data disks, and how full the disks of machines are. Unknown ones raise NotFoundError."""

    async def create(self, name: str, size_mib: int) -> DataDiskState:
        """Makes one; ConflictError: another has that name; GuestError, CapacityError."""

    def every(self) -> builtins.list[DataDiskState]:
        """All, the oldest first."""

    def get(self, name: str) -> DataDiskState:
        """One."""

    async def grow(self, name: str, size_mib: int) -> DataDiskState:
        """Makes it larger; ValidationError: it is; InvalidStateError: it is in use."""

    async def remove(self, name: str) -> None:
        """Removes one; ConflictError: a machine has it."""

    async def usage(self, ref: str) -> builtins.list[DiskUsage]:
        """The disks of a machine, its own first."""


class Templates(Protocol):
    """What machines are started from without booting."""

    def templates(self) -> Sequence[TemplateInfo]:
        """All, the last used first. May block for a moment."""

    async def remove_template(self, template_id: str) -> None:
        """Removes one.

        Raises:
            NotFoundError: there is none of that name.
        """


class Batch(Protocol):
    """What comes next for a follower; `missed`: what came before it is not kept any more."""

    @property
    def events(self) -> Sequence[Event]:
        """In the order in which they came."""

    @property
    def missed(self) -> bool:
        """Whether some are left out before them."""


class Follower(Protocol):
    """A place in what has happened to machines."""

    @property
    def id(self) -> str:
        """Of the last event that it has passed: what comes after it is yet to come."""

    async def next(self, timeout: float) -> Batch | None:  # noqa: ASYNC109
        """What comes next; None when nothing came within `timeout` seconds."""


class Machines(Protocol):
    """Who owns the machines. `ref` is an id or a name; unknown ones raise NotFoundError."""

    @property
    def disks(self) -> Disks:
        """Their data disks."""

    async def create(self, spec: MachineSpec) -> Machine:
        """Makes a machine, not started.

        Raises:
            ConflictError: the name is taken.
            ValidationError: this host could never give it, or kernel or root disk is none.
        """

    def get(self, ref: str) -> Machine:
        """One machine."""

    def list(
        self,
        *,
        status: Status | None,
        labels: Sequence[tuple[str, str | None]],
        limit: int,
        offset: int,
    ) -> tuple[builtins.list[Machine], int]:
        """Machines that have the status and all labels (None: any value), and their number."""

    async def delete(self, ref: str, *, force: bool) -> None:
        """Removes a machine; InvalidStateError unless it is at rest or `force` stops it."""

    async def start(self, ref: str, *, key: str) -> Machine:
        """Returns when it runs; CapacityError, GuestError, OperationTimeoutError, InvalidState.

        Boots take turns by `key`, the id of the key that asks.
        """

    async def stop(self, ref: str) -> Machine:
        """Returns when it is stopped."""

    async def restart(self, ref: str, *, key: str) -> Machine:
        """Stops it if it runs, and returns when it runs anew; raises as `start` does."""

    async def pause(self, ref: str) -> Machine:
        """Returns when it stands still; InvalidStateError when it does not run."""

    async def resume(self, ref: str) -> Machine:
        """Returns when it runs on; InvalidStateError when it neither runs nor stands still."""

    async def sleep(self, ref: str) -> Machine:
        """Returns when its memory is on disk; InvalidStateError when it does not run."""

    async def change(self, ref: str, change: MachineChange) -> Machine:
        """Returns when other ports are exposed and other labels borne."""

    async def snapshot(self, ref: str, name: str) -> SnapshotInfo:
        """Keeps it under a name; ConflictError: another has that; InvalidStateError."""

    async def restore(self, ref: str, snapshot: str) -> Machine:
        """Makes it what it was; InvalidStateError: the snapshot is another machine's."""

    async def clone(self, snapshot: str, name: str, change: MachineChange) -> Machine:
        """Makes a machine of a snapshot; raises as `create`, and if the change can't be."""

    def snapshots(self, ref: str | None) -> Sequence[SnapshotInfo]:
        """All snapshots, or those of one machine."""

    def find_snapshot(self, name: str) -> SnapshotInfo:
        """One snapshot; NotFoundError."""

    async def remove_snapshot(self, name: str) -> None:
        """Removes one; NotFoundError; ConflictError while a machine is made of it."""

    async def wait(self, ref: str, status: Status, timeout: float) -> Machine:  # noqa: ASYNC109
        """Returns when it has that status; OperationTimeoutError after `timeout` seconds."""

    async def exec(self, ref: str, request: ExecRequest) -> ExecResult:
        """Runs one process in the machine; InvalidStateError unless it runs."""

    def processes(self, ref: str) -> Processes:
        """Processes in the machine whose streams are carried."""

    def files(self, ref: str) -> Files:
        """What is on the machine's disk; it must run for that."""

    async def ports(self, ref: str) -> tuple[tuple[ExposedPort, ...], tuple[Listener, ...]]:
        """Exposed ports, and what listens without being exposed."""

    async def activity(self, ref: str) -> Activity:
        """What goes on between clients and the machine; CapacityError when it is not known."""

    def console(self, ref: str, tail: int | None) -> AsyncIterator[bytes]:
        """What the machine wrote to its serial port; the last `tail` lines of it. In pieces."""

    def follow_console(self, ref: str, tail: int | None) -> AsyncIterator[bytes]:
        """The same, then what comes; empty pieces in between. Ends when the machine is deleted."""

    def follow(self, ref: str | None, after: str | None) -> AbstractContextManager[Follower]:
        """Hears what happens to a machine, or to all, after an event.

        ValidationError: there is no such event; CapacityError: too many listen.
        """


class Requests(Protocol):
    """Hears of the API's own answers."""

    def request(self, method: str, route: str | None, status: int, seconds: float) -> None:
        """An answer; `route` is the template of its path, None: there is none."""


class Metrics(Protocol):
    """Counts, and shows what was counted; `hyperfleet.metrics.scrape.Metrics` is one."""

    @property
    def instruments(self) -> Requests:
        """Where the API counts."""

    async def scrape(self, accept: str) -> tuple[bytes, str]:
        """Everything as text, and its media type, as an Accept header asks."""
