"""Other ports and labels, in every state; restarts."""

from __future__ import annotations

import asyncio

import pytest

from hyperfleet.errors import GuestError, InvalidStateError, NotFoundError, ValidationError
from hyperfleet.fleet import Fleet
from hyperfleet.guest.agent import Agent
from hyperfleet.lifecycle import Status
from hyperfleet.machine import EgressRule, Machine, MachineChange, PortOptions
from hyperfleet.proxy.interface import Answer
from hyperfleet.vmm.fake_faults import Boot, Faults

from .world import Images, World, get, run, spec

PAGE = "echo page > /www/index.html; httpd -h /www -p "


def ports(*exposed: int) -> MachineChange:
    return MachineChange(exposed_ports=exposed)


def numbers(machine: Machine) -> list[int]:
    return [port.port for port in machine.ports]


async def recorded(world: World) -> Machine:
    [machine] = await world.store.all()
    return machine


@pytest.mark.parametrize("status", [Status.PENDING, Status.STOPPED, Status.FAILED])
async def test_a_machine_at_rest_starts_with_what_it_was_changed_to(
    world: World, fleet: Fleet, status: Status
) -> None:
    machine = await fleet.create(spec(labels={"tier": "front"}))
    if status is not Status.PENDING:
        await fleet.start("web")
    if status is Status.STOPPED:
        await fleet.stop("web")
    if status is Status.FAILED:
        world.process(machine).end(world.died)
        await fleet.wait("web", Status.FAILED, 5)
    changed = await fleet.change("web", ports(81, 82))
    assert (changed.status, numbers(changed)) == (status, [81, 82])
    assert changed.spec.labels == {"tier": "front"}
    assert changed.updated_at > machine.updated_at
    assert world.routes.told[-1] == changed
    assert (await recorded(world)).spec == changed.spec
    started = await fleet.start("web")
    assert list(await world.process(machine).forwards()) == [81, 82]
    assert None not in {port.upstream for port in started.ports}


async def test_a_running_machine_is_reached_by_a_new_port_at_once(
    world: World, fleet: Fleet
) -> None:
    machine = await fleet.create(spec())
    await fleet.start("web")
    await run(fleet, "web", "sh", "-c", f"{PAGE}80; httpd -h /www -p 127.0.0.1:81")
    [before] = (await world.routes.until(lambda one: one.ports[0].listening)).ports
    changed = await fleet.change("web", ports(81, 80))
    new, kept = changed.ports
    assert kept == before
    assert (new.port, new.listening, new.address) == (81, True, "127.0.0.1")
    assert await get(new.upstream) == b"page\n"
    assert world.routes.told[-1] == changed
    assert await fleet.probe(machine.id, 81) == Answer(upstream=new.upstream)
    _, others = await fleet.ports("web")
    assert others == ()


@pytest.mark.parametrize("address", ["", "127.0.0.1:"])
async def test_a_port_that_is_not_exposed_any_more_is_withdrawn_and_then_its_way(
    world: World, fleet: Fleet, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    machine = await fleet.create(spec(exposed_ports=(80, 81)))
    await fleet.start("web")
    await run(fleet, "web", "sh", "-c", f"{PAGE}80; httpd -h /www -p {address}81")
    before = await world.routes.until(lambda one: all(port.listening for port in one.ports))
    process = world.process(machine)
    unforward = process.unforward
    told: list[list[int]] = []

    async def watched(guest_port: int) -> None:
        last = world.routes.told[-1]
        assert isinstance(last, Machine)
        told.append(numbers(last))
        await unforward(guest_port)

    monkeypatch.setattr(process, "unforward", watched)
    changed = await fleet.change("web", ports(80))
    assert changed.ports == before.ports[:1]
    assert told == [[80]] * (2 if address else 1)
    assert await process.forwards() == {80: changed.ports[0].upstream}
    assert await fleet.probe(machine.id, 81) is None
    with pytest.raises(ConnectionRefusedError):
        await get(before.ports[1].upstream)
    assert [one.port for one in (await fleet.ports("web"))[1]] == [81]


async def test_a_look_that_is_under_way_does_not_bring_a_port_back(
    world: World, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = await fleet.create(spec(exposed_ports=(80, 81)))
    await fleet.start("web")
    await run(fleet, "web", "sh", "-c", f"{PAGE}127.0.0.1:80; httpd -h /www -p 127.0.0.1:81")
    await world.routes.until(lambda one: all(port.listening for port in one.ports))
    asked, may_go = asyncio.Event(), asyncio.Event()
    relay = Agent.relay

    async def slow(agent: Agent, address: str, port: int) -> int:
        asked.set()
        await may_go.wait()
        return await relay(agent, address, port)

    monkeypatch.setattr(Agent, "relay", slow)
    looking = asyncio.create_task(fleet.ports("web"))
    await asked.wait()
    changing = asyncio.create_task(fleet.change("web", ports(80)))
    await world.routes.until(lambda one: numbers(one) == [80])
    may_go.set()
    await asyncio.gather(looking, changing)
    [kept] = fleet.get("web").ports
    ways = await world.process(machine).forwards()
    assert set(ways.values()) == {ways[80], kept.upstream}
    assert await get(kept.upstream) == b"page\n"


async def test_a_guest_that_hangs_keeps_no_port_open(world: World, fleet: Fleet) -> None:
    machine = await fleet.create(spec())
    await fleet.start("web")
    world.process(machine).guest.freeze()
    async with asyncio.timeout(4):
        changed = await fleet.change("web", ports(81))
    assert numbers(changed) == [81]
    assert await world.process(machine).forwards() == {81: changed.ports[0].upstream}


async def test_labels_alone_touch_nothing_else(world: World, fleet: Fleet) -> None:
    machine = await fleet.create(spec(labels={"a": "1"}))
    before = await fleet.start("web")
    world.process(machine).guest.freeze()
    async with asyncio.timeout(1):
        changed = await fleet.change("web", MachineChange(labels={"b": ""}))
    assert changed.spec.labels == {"b": ""}
    assert changed.ports == before.ports
    assert (await recorded(world)).spec.labels == {"b": ""}
    assert fleet.list(status=None, labels=[("a", None)], limit=9, offset=0) == ([], 0)


async def test_while_it_starts_or_stops_a_change_waits(world: World, fleet: Fleet) -> None:
    machine = await fleet.create(spec(faults="fake.delay=0.05"))
    starting = asyncio.create_task(fleet.start("web"))
    await world.spawned(machine)
    changed = await fleet.change("web", ports(81))
    assert starting.done()
    assert (changed.status, numbers(changed)) == (Status.RUNNING, [81])
    assert list(await world.process(machine).forwards()) == [81]
    stopping = asyncio.create_task(fleet.stop("web"))
    await world.routes.until(lambda one: one.status is Status.STOPPING)
    changed = await fleet.change("web", ports())
    assert stopping.done()
    assert (changed.status, changed.ports) == (Status.STOPPED, ())


async def test_a_change_does_not_keep_a_stop_from_ending_the_boot(
    world: World, fleet: Fleet
) -> None:
    machine = await fleet.create(spec(faults="fake.boot=never"))
    starting = asyncio.create_task(fleet.start("web"))
    await world.spawned(machine)
    changing = asyncio.create_task(fleet.change("web", ports(81)))
    await asyncio.sleep(0)
    assert (await fleet.stop("web")).status is Status.STOPPED
    assert numbers(await changing) == [81]
    with pytest.raises(InvalidStateError, match="was stopped while it started"):
        await starting


async def test_changes_are_done_one_after_the_other(world: World, fleet: Fleet) -> None:
    machine = await fleet.create(spec())
    await fleet.start("web")
    changes = [fleet.change("web", ports(80, 1000 + number)) for number in range(20)]
    answers = await asyncio.gather(*changes)
    assert [numbers(answer)[1] for answer in answers] == list(range(1000, 1020))
    assert list(await world.process(machine).forwards()) == [80, 1019]


async def test_what_can_not_be_recorded_is_not_changed(world: World, fleet: Fleet) -> None:
    machine = await fleet.create(spec())
    before = await fleet.start("web")
    world.store.refuses = Status.RUNNING
    with pytest.raises(OSError, match="disk full"):
        await fleet.change("web", ports(81))
    assert fleet.get("web") == before
    assert list(await world.process(machine).forwards()) == [80]
    await fleet.stop("web")
    await fleet.delete("web", force=False)
    with pytest.raises(NotFoundError):
        await fleet.change("web", ports(81))


@pytest.mark.parametrize("agent", [True, False])
async def test_a_machine_changed_right_before_a_crash_is_adopted_as_recorded(
    world: World, *, agent: bool
) -> None:
    first = await world.fleet()
    machine = await first.create(spec(exposed_ports=(80, 81)))
    await first.start("web")
    world.store.dies_after = Status.RUNNING
    await world.crash_when_told(first.change("web", ports(81, 82)))
    process = world.process(machine)
    assert list(await process.forwards()) == [80, 81]
    if not agent:
        process.guest.freeze()
    second = await world.fleet()
    assert numbers(second.get("web")) == [81, 82]
    if agent:
        assert list(await process.forwards()) == [81, 82]
        assert None not in {port.upstream for port in second.get("web").ports}
    changed = await second.change("web", ports(82))
    assert await process.forwards() == {82: changed.ports[0].upstream}


async def test_twenty_restarts_are_one(world: World, fleet: Fleet) -> None:
    made = await fleet.create(spec())
    await fleet.start("web")
    await run(fleet, "web", "sh", "-c", "echo kept > /file")
    before = world.process(made)
    machines = await asyncio.gather(*(fleet.restart("web") for _ in range(20)))
    assert {(machine.status, machine.lifecycle) for machine in machines} == {(Status.RUNNING, 2)}
    assert not before.alive
    assert (await run(fleet, "web", "cat", "/file")).stdout == b"kept\n"
    assert world.routes.statuses()[-4:] == [
        Status.STOPPING,
        Status.STOPPED,
        Status.STARTING,
        Status.RUNNING,
    ]


async def test_a_restart_starts_what_does_not_run(world: World, fleet: Fleet) -> None:
    machine = await fleet.create(spec())
    assert (await fleet.restart("web")).lifecycle == 1
    await fleet.stop("web")
    assert (await fleet.restart("web")).lifecycle == 2
    world.process(machine).end(world.died)
    await fleet.wait("web", Status.FAILED, 5)
    again = await fleet.restart("web")
    assert (again.lifecycle, again.error_message) == (3, None)


async def test_a_restart_gives_a_boot_up_and_a_stop_gives_up_a_restart(
    world: World, fleet: Fleet
) -> None:
    machine = await fleet.create(spec(faults="fake.boot=never"))
    starting = asyncio.create_task(fleet.start("web"))
    await world.spawned(machine)
    first = world.process(machine)
    restarting = asyncio.create_task(fleet.restart("web"))
    with pytest.raises(InvalidStateError, match="was stopped while it started"):
        await starting
    await world.routes.until(
        lambda one: one.status is Status.STARTING and one.updated_at > machine.updated_at
    )
    assert (await fleet.stop("web")).status is Status.STOPPED
    assert not first.alive
    with pytest.raises(InvalidStateError, match="was stopped while it started"):
        await restarting
    assert world.driver.processes() == []


async def test_a_restart_that_fails_says_why(
    world: World, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fleet.create(spec())
    await fleet.start("web")
    monkeypatch.setattr(world.driver, "_faults", lambda _: Faults(boot=Boot.PANIC))
    with pytest.raises(GuestError, match="Kernel panic"):
        await fleet.restart("web")
    assert fleet.get("web").status is Status.FAILED


async def test_a_machine_that_could_not_start_again_is_not_stopped(
    world: World, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = await fleet.create(spec())
    await fleet.start("web")

    def gone(_images: Images, _path: str) -> None:
        raise ValidationError("kernel_image_path: it is gone")

    monkeypatch.setattr(Images, "kernel", gone)
    with pytest.raises(ValidationError, match="it is gone"):
        await fleet.restart("web")
    assert fleet.get("web").status is Status.RUNNING
    assert world.process(machine).alive


async def test_a_boot_that_is_given_up_for_a_restart_which_can_not_be_leaves_nothing_running(
    world: World, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = await fleet.create(spec(faults="fake.boot=never"))
    starting = asyncio.create_task(fleet.start("web"))
    await world.spawned(machine)

    def gone(_images: Images, _path: str) -> None:
        raise ValidationError("kernel_image_path: it is gone")

    monkeypatch.setattr(Images, "kernel", gone)
    with pytest.raises(ValidationError, match="it is gone"):
        await fleet.restart("web")
    with pytest.raises(InvalidStateError):
        await starting
    assert fleet.get("web").status is Status.STOPPED
    assert world.driver.processes() == []


async def test_by_user_networking_egress_is_all_or_nothing_and_waits_for_a_stop(
    world: World, fleet: Fleet
) -> None:
    rules = (EgressRule(network="192.0.2.0/24"),)
    with pytest.raises(ValidationError, match=r"egress: .* .HYPERFLEET_NETWORK=tap"):
        await fleet.create(spec("other", egress=rules))
    await fleet.create(spec())
    await fleet.start("web")
    before = await recorded(world)
    with pytest.raises(ValidationError, match="HYPERFLEET_NETWORK=tap"):
        await fleet.change("web", MachineChange(egress=rules))
    with pytest.raises(InvalidStateError, match="stop it first"):
        await fleet.change("web", MachineChange(egress="none", labels={"a": "b"}))
    assert await recorded(world) == before
    # As it is already: nothing to refuse.
    await fleet.change("web", MachineChange(egress="all"))
    await fleet.stop("web")
    changed = await fleet.change("web", MachineChange(egress="none"))
    assert changed.spec.egress == (await recorded(world)).spec.egress == "none"


async def test_options_of_ports_are_in_force_at_once_and_go_with_the_exposure(
    world: World, fleet: Fleet
) -> None:
    vite = PortOptions(port=81, host="localhost:5173", strip_prefix=False)
    machine = await fleet.create(spec(exposed_ports=(80, 81)))
    await fleet.start("web")
    before = await world.process(machine).forwards()
    changed = await fleet.change("web", MachineChange(port_options=(vite,)))
    assert changed.spec.port_options == (vite,)
    assert world.routes.told[-1] == changed
    assert (await recorded(world)).spec == changed.spec
    assert await world.process(machine).forwards() == before
    assert (await fleet.change("web", ports(81, 82))).spec.port_options == (vite,)
    wrong = MachineChange(port_options=(PortOptions(port=80, host="a"),))
    with pytest.raises(ValidationError, match="port 80, which is not exposed"):
        await fleet.change("web", wrong)
    assert fleet.get("web").spec.port_options == (vite,)
    assert (await fleet.change("web", ports(80))).spec.port_options == ()


async def test_options_of_a_port_that_is_not_exposed_make_no_machine(fleet: Fleet) -> None:
    with pytest.raises(ValidationError, match="add 8080 to exposed_ports"):
        await fleet.create(spec(port_options=(PortOptions(port=8080, host="a"),)))
    assert fleet.list(status=None, labels=(), limit=9, offset=0) == ([], 0)
