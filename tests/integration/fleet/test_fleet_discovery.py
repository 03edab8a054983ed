"""Routes follow what listens in the guest."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from hyperfleet.errors import GuestError
from hyperfleet.fleet import Fleet, watching
from hyperfleet.lifecycle import Status
from hyperfleet.machine import Machine
from hyperfleet.proxy.interface import Answer
from hyperfleet.vmm.fake_faults import Channel

from .world import World, get, run, spec

PAGE = "echo page > /www/index.html; httpd -h /www -p "


def listening(machine: Machine) -> bool:
    return machine.ports[0].listening


def _is_seen(machine_id: str, machine: Machine) -> bool:
    return machine.id == machine_id and listening(machine)


async def test_an_exposed_port_has_a_way_in_from_the_start(fleet: Fleet) -> None:
    await fleet.create(spec(exposed_ports=(80, 8080)))
    machine = await fleet.start("web")
    assert [(port.port, port.listening) for port in machine.ports] == [(80, False), (8080, False)]
    assert len({port.upstream for port in machine.ports} - {None}) == 2


@pytest.mark.parametrize(("channel", "poll_interval"), [(Channel.OK, 3600.0), (Channel.DEAF, 0.05)])
async def test_a_server_is_found_at_its_guests_word_or_by_the_next_look(
    world: World, channel: Channel, poll_interval: float
) -> None:
    fleet = await world.fleet(poll_interval=poll_interval)
    machine = await fleet.create(spec(faults=f"fake.channel={channel}"))
    await fleet.start("web")
    # No exec, which would have the ports looked at.
    world.process(machine).guest.listen("0.0.0.0", 80, "/")
    found = await world.routes.until(listening)
    assert found.ports[0].address == "0.0.0.0"
    assert found.ports[0].since is not None
    world.process(machine).guest.stop_listening()
    gone = await world.routes.until(lambda one: not listening(one))
    assert gone.ports[0].since is None
    assert gone.ports[0].upstream == found.ports[0].upstream


async def test_what_begins_while_nobody_hears_of_it_is_seen_when_somebody_does(
    world: World,
) -> None:
    fleet = await world.fleet(poll_interval=3600)
    machine = await fleet.create(spec())
    await fleet.start("web")
    guest = world.process(machine).guest
    guest.hang_up()
    guest.listen("0.0.0.0", 80, "/")
    await world.routes.until(listening)
    await fleet.pause("web")
    guest.stop_listening()
    await fleet.resume("web")
    await world.routes.until(lambda one: one.status is Status.RUNNING and not listening(one))
    await fleet.close()
    guest.listen("0.0.0.0", 80, "/")
    fleet = await world.fleet(poll_interval=3600)
    assert listening(fleet.get("web"))
    guest.stop_listening()
    await world.routes.until(lambda one: not listening(one))


async def test_a_guest_that_has_news_without_end_is_looked_at_no_more_often_than_the_bound(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "_EACH_S", 3600.0)
    monkeypatch.setattr(watching, "_SAVED_S", 3 * 3600.0)
    monkeypatch.setattr(watching, "_SHORTEST_S", 0.0)
    asked: list[float] = []

    async def rest(pause: float) -> None:
        asked.append(pause)
        if pause:
            enough.set()
            await asyncio.Event().wait()

    enough = asyncio.Event()
    monkeypatch.setattr(watching, "_rest", rest)
    fleet = await world.fleet(poll_interval=3600)
    await fleet.create(spec(faults="fake.channel=restless"))
    await fleet.start("web")
    async with asyncio.timeout(10):
        await enough.wait()
    assert len(asked) == 4
    # One at the start; and news that come while a look has yet to begin are of that look.
    assert 1 < world.observer.heard.count("seen") <= 1 + len(asked)


@pytest.mark.parametrize("address", ["127.0.0.1", "[::1]"])
async def test_a_server_on_the_guests_loopback_is_reached_by_a_relay(
    world: World, fleet: Fleet, address: str
) -> None:
    await fleet.create(spec())
    before = (await fleet.start("web")).ports[0].upstream
    await run(fleet, "web", "sh", "-c", f"{PAGE}{address}:80")
    found = await world.routes.until(listening)
    assert found.ports[0].upstream != before
    assert found.ports[0].address == address.strip("[]")
    assert await get(found.ports[0].upstream) == b"page\n"


async def test_a_relays_way_goes_when_it_is_not_needed(world: World, fleet: Fleet) -> None:
    machine = await fleet.create(spec())
    direct = (await fleet.start("web")).ports[0].upstream
    await run(fleet, "web", "sh", "-c", f"{PAGE}127.0.0.1:80")
    await world.routes.until(listening)
    assert len(await world.process(machine).forwards()) == 2
    await run(fleet, "web", "sh", "-c", f"killall httpd; {PAGE}80")
    moved = await world.routes.until(lambda one: one.ports[0].address == "0.0.0.0")
    assert moved.ports[0].upstream == direct
    assert await world.process(machine).forwards() == {80: direct}


async def test_routes_are_told_of_changes_only(world: World) -> None:
    fleet = await world.fleet()
    await fleet.create(spec())
    await fleet.start("web")
    told = len(world.routes.told)
    for _ in range(5):
        await fleet.ports("web")
    assert len(world.routes.told) == told


async def test_a_probe_asks_at_once(world: World, fleet: Fleet) -> None:
    machine = await fleet.create(spec())
    assert await fleet.probe(machine.id, 80) is None
    assert await fleet.probe("nobody", 80) is None
    running = await fleet.start("web")
    assert await fleet.probe(machine.id, 80) == Answer(upstream=None)
    assert await fleet.probe(machine.id, 81) is None
    world.process(machine).guest.listen("0.0.0.0", 80, "/")
    answers = await asyncio.gather(*(fleet.probe(machine.id, 80) for _ in range(50)))
    assert set(answers) == {Answer(upstream=running.ports[0].upstream)}
    assert listening(await world.routes.until(listening))


async def test_ports_tell_what_is_not_exposed_too(fleet: Fleet) -> None:
    await fleet.create(spec())
    assert await fleet.ports("web") == (fleet.get("web").ports, ())
    await fleet.start("web")
    await run(fleet, "web", "sh", "-c", f"{PAGE}127.0.0.1:5432; httpd -p 80 -h /www")
    exposed, others = await fleet.ports("web")
    assert [(port.port, port.listening, port.address) for port in exposed] == [
        (80, True, "0.0.0.0")
    ]
    assert [(one.port, one.address) for one in others] == [(5432, "127.0.0.1")]
    await fleet.stop("web")
    exposed, others = await fleet.ports("web")
    assert ([port.listening for port in exposed], others) == ([False], ())


async def test_a_lost_channel_comes_back(world: World, fleet: Fleet) -> None:
    machine = await fleet.create(spec())
    await fleet.start("web")
    sleeping = asyncio.create_task(run(fleet, "web", "sleep", "60"))
    await run(fleet, "web", "true")
    world.process(machine).guest.hang_up()
    with pytest.raises(GuestError, match="channel"):
        await sleeping
    assert (await run(fleet, "web", "echo", "back")).stdout == b"back\n"
    assert fleet.get("web").status is Status.RUNNING


async def test_machines_that_hang_do_not_hide_the_others(world: World) -> None:
    fleet = await world.fleet(poll_interval=0.05)
    stuck = [await fleet.create(spec(f"stuck{number}")) for number in range(40)]
    sound = await fleet.create(spec("sound"))
    await asyncio.gather(*(fleet.start(one.id) for one in (*stuck, sound)))
    for one in stuck:
        world.process(one).guest.freeze()
    world.process(sound).guest.listen("0.0.0.0", 80, "/")
    found = await world.routes.until(listening)
    assert found.id == sound.id


async def test_who_asks_for_the_ports_of_a_machine_that_stops_gets_an_answer(
    world: World, fleet: Fleet
) -> None:
    machine = await fleet.create(spec())
    await fleet.start("web")
    # The look begins and finds no answer; the stop ends it.
    world.process(machine).guest.freeze()
    asking = [asyncio.create_task(fleet.ports("web")) for _ in range(3)]
    probing = asyncio.create_task(fleet.probe(machine.id, 80))
    await asyncio.sleep(0)
    world.process(machine).end(world.died)
    for ports, unexposed in await asyncio.gather(*asking):
        assert ([port.listening for port in ports], unexposed) == ([False], ())
    assert await probing is None


async def test_machines_that_hang_keep_nobody_waiting(world: World) -> None:
    """Forty of fifty hang; the others are adopted, looked at, stopped and started as if alone."""
    first = await world.fleet()
    for number in range(50):
        await first.create(spec(f"m{number}"))
    await asyncio.gather(*(first.start(f"m{number}") for number in range(50)))
    machines = first.machines()
    await first.close()
    for machine in machines[10:]:
        world.process(machine).guest.freeze()
    async with asyncio.timeout(5):
        fleet = await world.fleet(poll_interval=0.1)
    assert {machine.status for machine in fleet.machines()} == {Status.RUNNING}
    async with asyncio.timeout(2):
        for machine in machines[:10]:
            world.process(machine).guest.listen("0.0.0.0", 80, "/")
            await world.routes.until(partial(_is_seen, machine.id))
        await fleet.stop("m0")
        await fleet.start("m0")
        assert (await run(fleet, "m0", "echo", "hello")).stdout == b"hello\n"
