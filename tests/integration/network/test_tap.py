"""Taps, rules and addresses as the kernel has them, without machines."""

from __future__ import annotations

import asyncio
import re
import socket
from datetime import timedelta
from ipaddress import IPv4Network
from pathlib import Path

import msgspec
import pytest
from pyroute2 import NFCTSocket

from hyperfleet.errors import CapacityError, GuestError, SettingsError
from hyperfleet.lifecycle import Status
from hyperfleet.machine import EgressRule
from hyperfleet.network import blocks, device
from hyperfleet.network.tap import table_name
from support.netns import run, taps

from .conftest import Home, launch

pytestmark = taps
LIST = (EgressRule(network="192.0.2.0/24", ports=(443,)),)


def rules() -> str:
    return run("nft", "list", "ruleset")


def links() -> set[str]:
    return set(re.findall(r"^(hf-\w+)", run("ip", "-brief", "link"), re.MULTILINE))


async def test_a_host_that_can_not_is_told_to_at_the_start(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = await home.machine(await home.network())
    monkeypatch.setattr("hyperfleet.network.nft.program", lambda: None)
    with pytest.raises(SettingsError, match="nft is not installed: sudo apt-get install nftables"):
        await home.network()
    # Where new machines are attached otherwise the server comes up; this one can't be started.
    later = home.unopened()
    await later.open([running], wanted=False)
    with pytest.raises(GuestError, match="nft is not installed"):
        await later.attach(launch(running))
    await later.detach(launch(running))


async def test_a_tap_ends_with_whoever_has_it(home: Home) -> None:
    network = await home.network()
    machine = await home.machine(network)
    descriptor = await home.attached(network, machine)
    tap = str(machine.network.tap_device)
    assert links() == {tap}
    assert device.forwards()
    address = run("ip", "-brief", "address", "show", "dev", tap).split()[2:]
    assert address == [f"{machine.network.tap_ip}/30"]
    # Someone has it already.
    with pytest.raises(GuestError, match="busy"):
        await asyncio.to_thread(device.make, machine.network)
    home.end(descriptor)
    # A program that the watch has just started may have a copy for a moment.
    async with asyncio.timeout(10):
        while await asyncio.to_thread(links):
            pass


async def test_what_is_detached_is_in_no_rule(home: Home) -> None:
    network = await home.network()
    machines = [await home.machine(network, egress=egress) for egress in ("all", "none", LIST)]
    descriptors = [await home.attached(network, machine) for machine in machines]
    for machine, descriptor in zip(machines, descriptors, strict=True):
        # Five sets and the map; a list also has a chain, to which the map leads.
        count = 6 if isinstance(machine.spec.egress, str) else 8
        assert rules().count(f"{machine.network.tap_device}") == count
        home.end(descriptor)
        for _ in range(2):
            await network.detach(launch(machine))
        assert str(machine.network.tap_device) not in rules()
    await network.close()
    assert "hyperfleet" not in rules()


async def test_the_next_control_plane_makes_the_rules_from_the_record(home: Home) -> None:
    first = await home.network()
    machines = [await home.machine(first) for _ in range(3)]
    for machine in machines:
        await home.attached(first, machine)
    before = rules()
    # Killed: one was changed and one stopped in the record, but not in the rules.
    changed = msgspec.structs.replace(
        machines[0], spec=msgspec.structs.replace(machines[0].spec, egress="none")
    )
    await home.store.save(changed)
    await home.store.save(msgspec.structs.replace(machines[1], status=Status.STOPPED))
    await home.network()
    after = rules()
    assert after != before
    assert f'"{changed.network.tap_device}" : goto refuse' in after
    assert str(machines[1].network.tap_device) not in after
    assert f'"{machines[2].network.tap_device}" : goto anywhere' in after


async def test_rules_of_a_home_without_machines_are_taken_away(home: Home) -> None:
    run("nft", "add", "table", "inet", table_name(home.folder))
    await home.network()
    assert rules() == ""


async def test_two_homes_are_held_apart(home: Home, tmp_path: Path) -> None:
    network = await home.network()
    await home.attached(network, await home.machine(network))
    other = Home(tmp_path / "other")
    try:
        with pytest.raises(SettingsError, match=r"HYPERFLEET_SUBNET=172\.30\.0\.0/24 overlaps"):
            await other.network()
        second = await other.network(subnet=IPv4Network("172.31.0.0/24"))
        await other.attached(second, await other.machine(second))
        assert len(re.findall(r"^table inet hyperfleet_", rules(), re.MULTILINE)) == 2
    finally:
        await other.close()


async def test_homes_that_both_came_first_find_out_when_a_machine_starts(
    home: Home, tmp_path: Path
) -> None:
    other = Home(tmp_path / "other")
    try:
        first, second = await home.network(), await other.network()
        await home.attached(first, await home.machine(first))
        machine = await other.machine(second)
        with pytest.raises(GuestError, match="HYPERFLEET_SUBNET of its own"):
            await second.attach(launch(machine))
        assert links() == {str(one.network.tap_device) for one in await home.store.all()}
    finally:
        await other.close()


async def test_a_subnet_that_the_host_uses_is_refused(home: Home) -> None:
    run("ip", "link", "add", "out0", "type", "veth", "peer", "name", "in0")
    run("ip", "address", "add", "172.30.0.77/28", "dev", "out0")
    run("ip", "link", "set", "out0", "up")
    with pytest.raises(SettingsError, match=r"overlaps 172\.30\.0\.\d+/\d+.* out0: set another"):
        await home.network()


async def test_egress_changes_in_place(home: Home) -> None:
    network = await home.network()
    machine = await home.machine(network)
    await home.attached(network, machine)
    tap = machine.network.tap_device
    for egress, verdict in ((LIST, tap), ("none", "refuse"), ("all", "anywhere"), (LIST, tap)):
        spec = msgspec.structs.replace(machine.spec, egress=egress)
        await network.permit(launch(msgspec.structs.replace(machine, spec=spec)))
        assert f'"{tap}" : goto {verdict}' in rules()
    assert "ip daddr 192.0.2.0/24" in rules()


async def test_restricted_machines_only_answer(home: Home) -> None:
    network = await home.network(restrict=True, host_ports=(80,))
    machine = await home.machine(network, egress="all")
    await home.attached(network, machine)
    assert f'"{machine.network.tap_device}" : goto refuse' in rules()
    assert "elements = { 80 }" not in rules()


async def test_rules_that_are_flushed_come_back(home: Home) -> None:
    network = await home.network()
    await home.attached(network, await home.machine(network))
    before = rules()
    for _ in range(2):
        run("nft", "flush", "ruleset")
        async with asyncio.timeout(10):
            while await asyncio.to_thread(rules) != before:
                pass


async def test_rules_that_are_not_as_they_should_be_are_made_anew(home: Home) -> None:
    network = await home.network()
    machines = [await home.machine(network) for _ in range(2)]
    await home.attached(network, machines[0])
    table = table_name(home.folder)
    tap = machines[0].network.tap_device
    run("nft", "delete", "element", "inet", table, "taps", f'{{ "{tap}" }}')
    await network.detach(launch(machines[0]))
    await home.attached(network, machines[1])
    assert str(tap) not in rules()
    assert rules().count(str(machines[1].network.tap_device)) == 6


async def test_an_address_comes_back_when_nobody_speaks_to_it(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = await home.network(subnet=IPv4Network("172.30.0.0/29"))
    gone, stays = [await home.machine(network) for _ in range(2)]
    descriptor = await home.attached(network, gone)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as speaker:
        speaker.sendto(b"hello", (str(gone.network.guest_ip), 9))
        home.end(descriptor)
        await network.detach(launch(gone))
        await home.store.remove(gone.id)
        network.release(gone.network, used=True)
        with pytest.raises(CapacityError, match="of 2, 1 are machines' and 1 were deleted"):
            await network.assign("x" * 12)

        # Long enough by time; but somebody goes on speaking to it, by whatever way there is.
        monkeypatch.setattr(blocks, "REST", timedelta(0))
        run("ip", "route", "add", "172.30.0.0/29", "dev", "lo")
        speaker.sendto(b"still", (str(gone.network.guest_ip), 9))
        run("nft", "add", "table", "ip", "t")
        run("nft", "add", "chain", "ip", "t", "c", "{ type filter hook output priority 0; }")
        run("nft", "add", "rule", "ip", "t", "c", "ct", "state", "new", "accept")
        speaker.sendto(b"still", (str(gone.network.guest_ip), 9))
        with pytest.raises(CapacityError):
            await network.assign("x" * 12)
    # The same is known to the next control plane.
    assert [one.guest_ip for one in await home.store.resting()] == [gone.network.guest_ip]
    run("ip", "route", "del", "172.30.0.0/29", "dev", "lo")
    later = await home.network(subnet=IPv4Network("172.30.0.0/29"))
    with pytest.raises(CapacityError):
        await later.assign("x" * 12)
    await asyncio.to_thread(flush_connections)
    assert (await later.assign("x" * 12)).guest_ip == gone.network.guest_ip
    assert await home.store.resting() == []
    assert stays.network.guest_ip != gone.network.guest_ip


def flush_connections() -> None:
    """As if their time was up."""
    with NFCTSocket() as table:
        table.flush()
