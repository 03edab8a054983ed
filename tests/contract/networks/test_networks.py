"""What every kind of network keeps: the same tests, with real machines, for each."""

from __future__ import annotations

from ipaddress import IPv4Interface
from pathlib import Path

import pytest

from hyperfleet.machine import How, new_machine_id
from support.bench import Guest, make_template, page

from .conftest import Joined, recorded

pytestmark = pytest.mark.vm


async def test_every_machine_is_recorded_with_its_own(joined: Joined) -> None:
    made = [await joined.network.assign(new_machine_id()) for _ in range(100)]
    assert {one.mode for one in made} == {joined.network.mode}
    assert len({one.guest_mac for one in made}) == 100
    for one in made:
        told = joined.network.introduce(one)
        card = IPv4Interface(told.address)
        assert str(card.ip) == one.guest_ip
        assert IPv4Interface(f"{told.gateway}/32") in card.network
    assert joined.network.introduce(made[0]) == joined.network.introduce(made[0])


async def test_ways_in_are_made_and_taken_while_the_machine_runs(joined: Joined) -> None:
    launch = await joined.launch()
    guest = await joined.start(launch)
    ways = await guest.process.forwards()
    assert list(ways) == [80]
    await guest.sh("echo page > /index.html; httpd -p 80 -h /; httpd -p 8080 -h /")
    assert await page(ways[80]) == b"page\n"
    more = await guest.process.forward(8080)
    assert await guest.process.forward(8080) == more
    assert await page(more) == b"page\n"
    await guest.process.unforward(8080)
    await guest.process.unforward(8080)
    assert await page(ways[80]) == b"page\n"
    assert (await guest.power_off()).powered_off

    for _ in range(2):
        await joined.driver.sweep(launch)
    descriptors = open_descriptors()
    with pytest.raises(OSError, match=r"refused|unreachable|Errno"):
        await page(ways[80])
    # Nothing of the first is in the way of the second.
    again = await joined.start(launch)
    await again.sh("httpd -p 80 -h /")
    assert await page((await again.process.forwards())[80]) == b"page\n"
    await again.power_off()
    await joined.driver.sweep(launch)
    assert open_descriptors() == descriptors


async def test_a_clone_has_cards_of_its_own(joined: Joined) -> None:
    launches = [await joined.launch() for _ in range(3)]
    first = await joined.driver.start(launches[0])
    await first.kill()
    await make_template(joined.driver, launches[0])
    cards = set()
    for launch in launches[1:]:
        guest = await joined.start(launch)
        assert guest.process.beginning.note is None
        assert guest.process.beginning.template is not None
        told = joined.network.introduce(launch.network)
        found = (await guest.sh("cat /sys/class/net/e*/address")).split()
        assert sorted(found) == sorted(
            card.mac for card in (told, told.outward) if card is not None and card.mac is not None
        )
        cards.update(found)
        await guest.sh("echo page > /index.html; httpd -p 80 -h /")
        assert await page((await guest.process.forwards())[80]) == b"page\n"
        await guest.let_go()
    assert len(cards) == 2 * len(found)


async def test_a_machine_made_of_a_snapshot_gets_cards_of_its_own(
    joined: Joined, tmp_path: Path
) -> None:
    launch, other = await joined.launch(), await joined.launch()
    guest = await joined.start(launch)
    await guest.sh("echo page > /index.html; httpd -p 80 -h /; httpd -p 127.0.0.1:81 -h /")
    relay = await guest.agent.relay("127.0.0.1", 81)
    assert await page(await guest.process.forward(relay)) == b"page\n"
    await guest.process.snapshot(tmp_path)
    other.directory.mkdir(parents=True)
    await joined.driver.copy(tmp_path, other.directory)
    clone = await joined.start(other)
    assert clone.process.beginning.how is How.MEMORY
    told = joined.network.introduce(other.network)
    found = (await clone.sh("cat /sys/class/net/e*/address")).split()
    assert sorted(found) == sorted(
        card.mac for card in (told, told.outward) if card is not None and card.mac is not None
    )
    addresses = await clone.sh("ip -4 addr")
    assert told.address in addresses
    # Both at once, and both are reached.
    for one in (guest, clone):
        assert await page((await one.process.forwards())[80]) == b"page\n"
    gateway = told.gateway if told.outward is None else told.outward.gateway
    assert str(gateway) in await clone.sh("ip route")
    relay = await clone.agent.relay("127.0.0.1", 81)
    assert await page(await clone.process.forward(relay)) == b"page\n"
    for one in (guest, clone):
        await one.let_go()


async def test_a_machine_stays_attached_when_its_control_plane_is_gone(joined: Joined) -> None:
    launch = await joined.launch()
    guest = await joined.start(launch)
    await guest.sh("echo page > /index.html; httpd -p 80 -h /")
    way = (await guest.process.forwards())[80]
    await guest.let_go()
    assert await page(way) == b"page\n"

    await joined.open([recorded(launch)])
    process = await joined.driver.adopt(launch)
    assert process is not None
    assert await process.forwards() == {80: way}
    assert await page(way) == b"page\n"
    second = await Guest.of(process)
    # It is told once more, which changes nothing.
    await second.agent.configure("web", joined.network.introduce(launch.network))
    assert await page(way) == b"page\n"
    assert (await second.power_off()).powered_off
    await joined.driver.sweep(launch)


async def test_a_machine_without_egress_answers_and_begins_nothing(joined: Joined) -> None:
    joined.network.check("none", running=False)
    launch = await joined.launch(egress="none")
    guest = await joined.start(launch)
    await guest.sh("echo page > /index.html; httpd -p 80 -h /")
    assert await page((await guest.process.forwards())[80]) == b"page\n"
    gateway = joined.network.introduce(launch.network).gateway
    for address in (gateway, "192.0.2.9"):
        tried = await guest.run("timeout", "2", "nc", str(address), "80")
        assert tried.exit_code != 0
        assert tried.stdout == b""
    await guest.power_off()
    await joined.driver.sweep(launch)


async def test_what_was_not_attached_is_detached_in_peace(joined: Joined) -> None:
    launch = await joined.launch()
    for _ in range(2):
        await joined.network.detach(launch)
        await joined.network.permit(launch)
    joined.network.release(launch.network, used=False)


def open_descriptors() -> int:
    return len([*Path("/proc/self/fd").iterdir()])
