"""What the model is held against: a control plane, its machines, and the blows that both take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple, Protocol

import msgspec

from hyperfleet.failpoints import Point
from hyperfleet.lifecycle import Status
from hyperfleet.machine import Restart

Call = Literal["start", "restart", "stop", "pause", "resume", "sleep"]
Act = Literal[Call, "delete", "change", "snapshot", "restore", "wake"]


class Refused(NamedTuple):
    """An answer that is an error."""

    code: str
    message: str


class Ran(NamedTuple):
    """What a command in a machine gave."""

    exit_code: int
    stdout: bytes


class Asked(msgspec.Struct, frozen=True):
    """What a machine is asked to be."""

    ports: tuple[int, ...] = ()
    restart: Restart = Restart.NEVER
    autostart: bool = False


class Known(msgspec.Struct):
    """What the model knows of a machine."""

    asked: Asked
    status: Status = Status.PENDING
    # What was last written to its disk.
    file: bytes | None = None
    # What was on it when its snapshot was made, which has its memory or not.
    kept: tuple[bytes | None, bool] | None = None


class Subject(Protocol):
    """Each method returns when what it does is over, and what follows from it."""

    def create(self, name: str, asked: Asked) -> Status | Refused: ...

    def call(self, call: Call, name: str) -> Status | Refused: ...

    def delete(self, name: str, *, force: bool) -> Refused | None: ...

    def change(self, name: str, asked: Asked) -> Status | Refused: ...

    def snapshot(self, name: str, snapshot: str) -> bool | Refused:
        """Whether it has the machine's memory."""

    def remove_snapshot(self, snapshot: str) -> None: ...

    def restore(self, name: str, snapshot: str) -> Status | Refused: ...

    def snapshots(self) -> set[str]: ...

    def run(self, name: str, *argv: str) -> Ran | Refused: ...

    def die(self, name: str) -> None:
        """A running machine's process is killed."""

    def power_off(self, name: str) -> None:
        """A running machine ends itself from inside."""

    def another_control_plane(self, *, orderly: bool) -> None:
        """The one that runs is ended, or killed; the next one is up."""

    def all_die(self, *, reboot: bool) -> None:
        """The control plane is killed, then every machine; the next one is up.

        `reboot`: it comes up in another boot of the host.
        """

    def killed_at(self, point: Point, act: Act, name: str) -> None:
        """Begins an act of the machine's; kills the control plane at the point, or at the end.

        What is snapshot is called `another`, what is restored as `kept_as` says. The next control
        plane is up.
        """

    def settled(self, name: str) -> Status | None:
        """The machine's status once nothing is under way; None: there is no machine."""

    def check(self, known: Mapping[str, Known]) -> None:
        """The record, the machines, the processes and the folders are those that the model knows.

        Nothing is under way.
        """

    def close(self) -> None: ...


# What a snapshot is called that a kill may have prevented.
ANOTHER = "another"


def kept_as(name: str) -> str:
    """What a machine's one snapshot is called."""
    return f"of-{name}"
