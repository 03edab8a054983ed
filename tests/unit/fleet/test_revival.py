"""Whether and when a machine comes up again by itself: the whole table."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperfleet.fleet.revival import End, Limits, Next, after_end, at_start
from hyperfleet.lifecycle import Status
from hyperfleet.machine import Machine, MachineNetwork, MachineSpec, Restart

NOW = datetime(2030, 1, 31, 12, tzinfo=UTC)
LIMITS = Limits(first_wait=1, longest_wait=60, calm=600, tries=10)
R = Restart


def machine(policy: Restart, *, autostart: bool = False, ran: float = 1, **state: Any) -> Machine:
    spec = MachineSpec(
        name="web",
        vcpu_count=1,
        mem_size_mib=64,
        kernel_image_path="k",
        rootfs_path="r",
        restart=policy,
        autostart=autostart,
    )
    return Machine(
        id="abc123def456",
        spec=spec,
        status=Status.RUNNING,
        vmm="fake",
        network=MachineNetwork(mode="user"),
        created_at=NOW,
        updated_at=NOW,
        started_at=NOW - timedelta(seconds=ran),
        **state,
    )


@pytest.mark.parametrize(
    ("policy", "end", "again"),
    [
        (R.NEVER, End.POWERED_OFF, False),
        (R.NEVER, End.DIED, False),
        (R.NEVER, End.NO_BOOT, False),
        (R.ON_FAILURE, End.POWERED_OFF, False),
        (R.ON_FAILURE, End.DIED, True),
        (R.ON_FAILURE, End.NO_BOOT, True),
        (R.ALWAYS, End.POWERED_OFF, True),
        (R.ALWAYS, End.DIED, True),
        (R.ALWAYS, End.NO_BOOT, True),
    ],
)
def test_what_is_started_again(policy: Restart, end: End, again: bool) -> None:
    following = after_end(machine(policy), end, NOW, LIMITS)
    assert following == Next(NOW + timedelta(seconds=1) if again else None, 0)


def test_waits_grow_to_a_bound_and_tries_end() -> None:
    waits = []
    for restarts in range(12):
        following = after_end(machine(R.ALWAYS, restarts=restarts), End.DIED, NOW, LIMITS)
        assert following.given_up == (restarts >= 10)
        if following.start_at is not None:
            waits.append((following.start_at - NOW).total_seconds())
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60, 60]


@pytest.mark.parametrize(("ran", "restarts"), [(599, 9), (600, 0)])
def test_one_that_ran_long_begins_anew(ran: float, restarts: int) -> None:
    following = after_end(machine(R.ALWAYS, ran=ran, restarts=9), End.DIED, NOW, LIMITS)
    assert following.restarts == restarts
    # The time that it ran before counts for no start that has failed.
    following = after_end(machine(R.ALWAYS, ran=ran, restarts=9), End.NO_BOOT, NOW, LIMITS)
    assert following.restarts == 9


@given(restarts=st.integers(0, 10**9), wait=st.floats(0.001, 1e5), ran=st.floats(0, 1e6))
def test_no_wait_is_longer_than_the_longest(restarts: int, wait: float, ran: float) -> None:
    limits = Limits(first_wait=wait, longest_wait=1e5, calm=600, tries=0)
    following = after_end(machine(R.ALWAYS, ran=ran, restarts=restarts), End.DIED, NOW, limits)
    assert following.start_at is not None
    assert NOW < following.start_at <= NOW + timedelta(seconds=1e5)


@pytest.mark.parametrize(
    ("policy", "autostart", "boot", "wait"),
    [
        # The host was started anew: autostart alone counts.
        (R.NEVER, False, "old", None),
        (R.NEVER, True, "old", 0),
        (R.ALWAYS, False, "old", None),
        (R.ALWAYS, True, "old", 0),
        # It ended in this boot of the host: as if its death had been seen; autostart adds to it.
        (R.NEVER, False, "new", None),
        (R.NEVER, True, "new", 0),
        (R.ON_FAILURE, False, "new", 1),
        (R.ALWAYS, True, "new", 1),
        # Started by a version that did not write the boot down.
        (R.NEVER, False, None, None),
        (R.ALWAYS, False, None, 1),
    ],
)
def test_what_comes_up_with_the_control_plane(
    policy: Restart, autostart: bool, boot: str | None, wait: float | None
) -> None:
    found = machine(policy, autostart=autostart, host_boot=boot)
    following = at_start(found, "new", NOW, LIMITS)
    assert following == Next(None if wait is None else NOW + timedelta(seconds=wait), 0)
