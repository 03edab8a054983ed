"""What is kept of what happened, and what those who follow get of it."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest

from hyperfleet.errors import ValidationError
from hyperfleet.fleet.events import Batch, Events, Follower
from hyperfleet.lifecycle import Status
from hyperfleet.machine import (
    Cause,
    Event,
    EventKind,
    ExposedPort,
    Machine,
    MachineNetwork,
    MachineSpec,
)

NOW = datetime(2030, 1, 31, tzinfo=UTC)
MACHINE = Machine(
    id="abc123def456",
    spec=MachineSpec(
        name="web", vcpu_count=1, mem_size_mib=64, kernel_image_path="k", rootfs_path="r"
    ),
    status=Status.RUNNING,
    vmm="fake",
    network=MachineNetwork(mode="user"),
    ports=(ExposedPort(port=80),),
    created_at=NOW,
    updated_at=NOW,
)


def add(events: Events, count: int = 1) -> None:
    for _ in range(count):
        events.add(EventKind.CREATED, MACHINE, Cause.REQUEST, NOW)


async def taken(follower: Follower) -> Batch:
    batch = await follower.next(5)
    assert batch is not None
    return batch


async def changed(**changes: object) -> list[Event]:
    events = Events()
    with events.following(None, None) as follower:
        after = msgspec.structs.replace(MACHINE, **changes)
        events.changed(MACHINE, after, Cause.MACHINE, NOW)
        batch = await follower.next(0)
        return [] if batch is None else list(batch.events)


async def test_what_changes_is_told_one_by_one() -> None:
    seen = ExposedPort(port=80, listening=True, address="::")
    spec = msgspec.structs.replace(MACHINE.spec, labels={"a": "b"})
    told = await changed(
        spec=spec,
        status=Status.FAILED,
        error_message="why",
        ports=(seen, ExposedPort(port=81)),
        guest_fault="lied",
    )
    assert [(event.kind, event.message) for event in told] == [
        (EventKind.CHANGED, None),
        (EventKind.STATUS, "why"),
        (EventKind.PORT, None),
        (EventKind.FAULT, "lied"),
    ]
    assert (told[0].fields, told[1].before, told[2].port) == (("labels",), Status.RUNNING, seen)


async def test_one_that_stands_still_by_itself_is_told_while_it_runs() -> None:
    [told] = await changed(stalled="no room")
    assert (told.kind, told.message) == (EventKind.STALLED, "no room")
    assert [event.kind for event in await changed(status=Status.PAUSED, stalled="no room")] == [
        EventKind.STATUS
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"updated_at": datetime(2031, 1, 1, tzinfo=UTC), "pid": 7, "lifecycle": 3},
        # Its way in is another one; what listens is not.
        {"ports": (ExposedPort(port=80, upstream="127.0.0.1:1"),)},
    ],
)
async def test_what_nobody_asks_about_is_not_told(changes: dict[str, object]) -> None:
    assert await changed(**changes) == []


async def test_a_follower_hears_all_that_comes_after_it_in_order() -> None:
    events = Events()
    add(events, 3)
    with events.following(None, None) as now, events.following(events.id_of(1), None) as since:
        assert [event.id for event in (await taken(since)).events] == [
            events.id_of(2),
            events.id_of(3),
        ]
        assert await now.next(0.01) is None
        add(events, 250)
        heard = [await taken(now) for _ in range(3)]
        assert [len(batch.events) for batch in heard] == [100, 100, 50]
        assert heard[-1].events[-1].id == now.id == events.id_of(253)
        assert not any(batch.missed for batch in heard)


async def test_who_is_too_slow_is_told_that_it_missed_something() -> None:
    events = Events(kept=10)
    with events.following(None, None) as slow:
        add(events, 25)
        batch = await taken(slow)
        assert batch.missed
        assert [event.id for event in batch.events] == [events.id_of(n) for n in range(16, 26)]
        add(events)
        assert not (await taken(slow)).missed


async def test_an_id_of_another_server_or_of_the_future_is_not_known() -> None:
    events = Events()
    for after in (Events().id_of(0), events.id_of(1)):
        with events.following(after, None) as follower:
            batch = await taken(follower)
            assert (batch.missed, batch.events) == (True, ())
    with pytest.raises(ValidationError), events.following("1", None):
        pass


async def test_only_one_machines_are_told_and_the_rest_is_passed() -> None:
    events = Events()
    add(events, 3)
    other = msgspec.structs.replace(MACHINE, id="zzz123def456")
    events.add(EventKind.CREATED, other, Cause.REQUEST, NOW)
    with events.following(events.id_of(0), other.id) as follower:
        batch = await taken(follower)
        assert [event.machine_id for event in batch.events] == [other.id]
        add(events, 300)
        assert await follower.next(0.01) is None
        assert follower.id == events.id_of(304)
