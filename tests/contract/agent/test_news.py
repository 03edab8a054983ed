"""News of a guest, on a host whose sockets the agent does not watch."""

from __future__ import annotations

from hyperfleet.guest.values import News
from hyperfleet.wire import guest as wire


async def test_a_host_that_has_seen_nothing_is_told_at_once(agent):
    assert await agent.watch(0) == News(number=1)
    assert await agent.watch(0) == News(number=1)


async def test_a_watch_waits_and_is_answered_when_another_takes_its_place(raw):
    await raw.hello(1)
    raw.send(wire.Watch(id=1, seen=1))
    raw.send(wire.Ping(id=2))
    assert await raw.receive() == wire.Done(id=2)
    raw.send(wire.Watch(id=3, seen=1))
    assert await raw.receive() == wire.News(id=1, number=1)
    raw.send(wire.Ping(id=4))
    assert await raw.receive() == wire.Done(id=4)


async def test_a_session_hears_nothing_of_the_watch_of_the_one_before(raw):
    await raw.hello(1)
    raw.send(wire.Watch(id=1, seen=1))
    await raw.hello(2)
    raw.send(wire.Watch(id=1, seen=1))
    raw.send(wire.Watch(id=2, seen=0))
    assert {(await raw.receive()).id, (await raw.receive()).id} == {1, 2}
    raw.send(wire.Ping(id=3))
    assert await raw.receive() == wire.Done(id=3)
