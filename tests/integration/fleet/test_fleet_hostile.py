"""A guest that turns against its host: it is named for what it did, and nobody else notices."""

from __future__ import annotations

import pytest

from hyperfleet.errors import GuestError
from hyperfleet.fleet.events import Follower
from hyperfleet.lifecycle import Status
from hyperfleet.machine import Cause, Event, EventKind
from hyperfleet.vmm.fake_faults import Channel

from .world import World, run, spec


@pytest.mark.parametrize(
    "lie", [Channel.GARBAGE, Channel.FLOODS, Channel.ENDLESS, Channel.CLAIMS, Channel.VERSION]
)
async def test_a_guest_that_breaks_the_protocol_is_marked_until_its_next_start(
    world: World, lie: Channel
) -> None:
    fleet = await world.fleet()
    bad = await fleet.create(spec("bad"))
    await fleet.create(spec("good", exposed_ports=()))
    for name in ("bad", "good"):
        assert (await fleet.start(name)).guest_fault is None
    guest = world.process(bad).guest
    guest.turn(lie)
    with fleet.follow("bad", None) as follower:
        with pytest.raises(GuestError, match="broke the agent's protocol"):
            await run(fleet, "bad", "true")
        told = await _next(follower)
        assert [(event.kind, event.cause) for event in told] == [(EventKind.FAULT, Cause.MACHINE)]
        assert fleet.get("bad").status is Status.RUNNING
        # It goes on so, and the other one is served as ever.
        for _ in range(20):
            assert (await run(fleet, "good", "true")).exit_code == 0
        assert fleet.get("good").guest_fault is None

        # The next control plane knows of it, and talks to a guest that has come to its senses.
        guest.turn(Channel.OK)
        await fleet.close()
        # Connected again, it may have broken it in another way meanwhile.
        while more := await _next(follower, within=0):
            told += more
    fault = fleet.get("bad").guest_fault
    words = [event.message or "" for event in told]
    assert words[-1] == fault
    assert {word.startswith("the guest broke the agent's protocol: ") for word in words} == {True}
    fleet = await world.fleet()
    assert fleet.get("bad").guest_fault == fault
    assert (await run(fleet, "bad", "true")).exit_code == 0
    assert (await fleet.restart("bad")).guest_fault is None


async def _next(follower: Follower, within: float = 10) -> list[Event]:
    """What has come; nothing if it has not within so many seconds."""
    batch = await follower.next(within)
    return [] if batch is None else [*batch.events]
