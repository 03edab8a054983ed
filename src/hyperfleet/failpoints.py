"""Named points between an intention and its record, at which a test has the control plane killed.

For tests only, and off unless HYPERFLEET_TEST_FAILPOINT names a point when `hyperfleet serve` or
`hyperfleet setup` starts: then the process ends by SIGKILL there, as it would in a crash. A point
that is off costs a comparison.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from enum import StrEnum

from hyperfleet.errors import SettingsError

VARIABLE = "HYPERFLEET_TEST_FAILPOINT"


class Point(StrEnum):
    """Every point there is: what has been done when it is reached, and what has not."""

    # A machine is made: its name is taken; recorded, not published.
    CREATE_BEGUN = "create.begun"
    CREATE_RECORDED = "create.recorded"
    # A start: nothing written; `starting` recorded; published, its turn to boot not come.
    START_BEGUN = "start.begun"
    START_RECORDED = "start.recorded"
    START_PUBLISHED = "start.published"
    # The driver: files made, no process; a process that nobody holds.
    SPAWN_READY = "spawn.ready"
    SPAWN_DONE = "spawn.done"
    # A boot: the process is held; the agent has been told who it is; ways in and ports are seen;
    # `running` recorded, not published; published, its end not watched for.
    BOOT_SPAWNED = "boot.spawned"
    BOOT_CONFIGURED = "boot.configured"
    BOOT_SEEN = "boot.seen"
    BOOT_RECORDED = "boot.recorded"
    BOOT_PUBLISHED = "boot.published"
    # A stop: nothing written; `stopping` recorded; published; the process ended; what it left is
    # swept; `stopped` recorded, not published.
    STOP_BEGUN = "stop.begun"
    STOP_RECORDED = "stop.recorded"
    STOP_PUBLISHED = "stop.published"
    STOP_ENDED = "stop.ended"
    STOP_SWEPT = "stop.swept"
    STOP_DONE = "stop.done"
    # A pause: recorded, not published; published, its processors run. A resumption: they run,
    # nothing is written; recorded, not published.
    PAUSE_RECORDED = "pause.recorded"
    PAUSE_PUBLISHED = "pause.published"
    RESUME_DONE = "resume.done"
    RESUME_RECORDED = "resume.recorded"
    # A sleep: recorded and published, it runs; its memory is saved, its process stands still; that
    # has ended. A wake: a process has the memory, which is still on disk; it is not any more, and
    # the process stands still.
    SLEEP_RECORDED = "sleep.recorded"
    SLEEP_SAVED = "sleep.saved"
    SLEEP_ENDED = "sleep.ended"
    WAKE_LOADED = "wake.loaded"
    WAKE_FORGOTTEN = "wake.forgotten"
    # A snapshot: nothing is copied; memory and disk are, and the machine stands still; it goes on;
    # all is written, and has no name.
    SNAPSHOT_BEGUN = "snapshot.begun"
    SNAPSHOT_STILL = "snapshot.still"
    SNAPSHOT_TAKEN = "snapshot.taken"
    SNAPSHOT_WRITTEN = "snapshot.written"
    # One that is put back: copied, and the machine is as it was; that has ended; what is copied is
    # the machine from now on; its folder before is out of the way; it is in its place, and that is
    # not recorded.
    RESTORE_COPIED = "restore.copied"
    RESTORE_CUT = "restore.cut"
    RESTORE_DECIDED = "restore.decided"
    RESTORE_CLEARED = "restore.cleared"
    RESTORE_PLACED = "restore.placed"
    # A clone: its folder is whole, nothing is recorded; recorded, the folder not in its place.
    CLONE_DECIDED = "clone.decided"
    CLONE_RECORDED = "clone.recorded"
    # A data disk: all of it is written, and has no name.
    DISK_WRITTEN = "disk.written"
    # A restart: stopped, not started again.
    RESTART_STOPPED = "restart.stopped"
    # A deletion: the data plane has forgotten it; its end is decided; its record is gone, its
    # directory is not.
    DELETE_WITHDRAWN = "delete.withdrawn"
    DELETE_DECIDED = "delete.decided"
    DELETE_FORGOTTEN = "delete.forgotten"
    # A change: recorded, not published; published; new ways in made, old ones not taken away.
    CHANGE_RECORDED = "change.recorded"
    CHANGE_PUBLISHED = "change.published"
    CHANGE_AIMED = "change.aimed"
    # Discovery: the agent has opened a relay, no way leads to it; the way is there, nobody knows.
    LOOK_RELAYED = "look.relayed"
    LOOK_DONE = "look.done"
    # A death: seen, and nothing written; what it left is swept; recorded, not published.
    DEATH_SEEN = "death.seen"
    DEATH_SWEPT = "death.swept"
    DEATH_RECORDED = "death.recorded"
    # Adoption: the process was looked for; it is held, its ports not seen; all is published.
    ADOPT_LOOKED = "adopt.looked"
    ADOPT_HELD = "adopt.held"
    ADOPT_DONE = "adopt.done"
    # A deletion that was cut off: its record is gone now, its directory is not.
    ADOPT_DELETING = "adopt.deleting"
    # A template: a process that nobody else knows of; all of it is written, and has no name.
    TEMPLATE_SPAWNED = "template.spawned"
    TEMPLATE_WRITTEN = "template.written"
    # A set-up: an artefact is made, not in its place; the recipe of the one before is gone; the
    # folder before is out of the way; the new one is in its place; a disk is among the versions,
    # its name leads to the one before; its name leads to it; its recipe is written.
    SETUP_MADE = "setup.made"
    SETUP_UNSIGNED = "setup.unsigned"
    SETUP_CLEARED = "setup.cleared"
    SETUP_PLACED = "setup.placed"
    SETUP_VERSIONED = "setup.versioned"
    SETUP_LINKED = "setup.linked"
    SETUP_RECORDED = "setup.recorded"


# Those of a set-up, those of a template, which real machines alone have, and the others.
SETUP = tuple(point for point in Point if point.startswith("setup."))
TEMPLATE = tuple(point for point in Point if point.startswith("template."))
CONTROL_PLANE = tuple(point for point in Point if point not in (*SETUP, *TEMPLATE))


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


_armed: Point | None = None
_act: Callable[[], None] = _die


def reach(point: Point) -> None:
    """Nothing, but at the point that is armed."""
    if point is _armed:
        _act()


def arm(point: Point | None, act: Callable[[], None] = _die) -> None:
    """Has `act` done whenever `point` is reached from now on; None: nothing any more."""
    global _armed, _act
    _armed, _act = point, act


def arm_from(environment: Mapping[str, str]) -> Point | None:
    """Arms the point that the environment names; none without the variable.

    Raises:
        SettingsError: there is no such point.
    """
    name = environment.get(VARIABLE)
    if not name:
        return None
    try:
        point = Point(name)
    except ValueError as error:
        raise SettingsError(
            f"{VARIABLE}={name[:100]}: no such point; it is for Hyperfleet's own tests: unset it"
        ) from error
    arm(point)
    return point
