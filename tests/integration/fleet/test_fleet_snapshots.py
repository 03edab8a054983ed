"""Machines that are kept as they are, put back, and made anew."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hyperfleet.errors import (
    CapacityError,
    ConflictError,
    GuestError,
    HyperfleetError,
    InvalidStateError,
    NotFoundError,
    ValidationError,
)
from hyperfleet.fleet import Fleet, clock
from hyperfleet.guest.agent import Agent
from hyperfleet.lifecycle import Status
from hyperfleet.machine import How, Machine, MachineChange
from hyperfleet.vmm.driver import Exit

from .world import World, console, get, run, spec


async def serving(fleet: Fleet, content: str) -> Machine:
    machine = await fleet.create(spec())
    await fleet.start("web")
    await run(fleet, "web", "sh", "-c", "httpd -p 80 -h /w")
    await write(fleet, "web", content)
    return machine


async def write(fleet: Fleet, ref: str, content: str) -> None:
    await run(fleet, ref, "sh", "-c", f"echo {content} > /w/index.html")


async def page(fleet: Fleet, ref: str) -> bytes:
    [port], _ = await fleet.ports(ref)
    return await get(port.upstream)


def folders(world: World, kind: str) -> set[str]:
    return {path.name for path in (world.home / kind).iterdir()}


async def test_a_machine_is_kept_and_goes_on(world: World, fleet: Fleet) -> None:
    machine = await serving(fleet, "before")
    lifecycle = fleet.get("web").lifecycle
    info = await fleet.snapshot("web", "one")
    assert (info.name, info.machine_id, info.has_memory) == ("one", machine.id, True)
    assert info.size_bytes > 0
    # Nobody noticed: its connections are kept.
    assert world.routes.statuses()[-1] is Status.RUNNING
    assert fleet.get("web").lifecycle == lifecycle
    assert not world.is_paused(machine.id)
    assert await page(fleet, "web") == b"before\n"
    assert list(fleet.snapshots(None)) == list(fleet.snapshots("web")) == [info]
    await fleet.pause("web")
    assert (await fleet.snapshot("web", "two")).has_memory
    assert world.is_paused(machine.id)
    assert fleet.get("web").status is Status.PAUSED


async def test_a_machine_that_stood_still_is_told_the_time(
    world: World, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = await serving(fleet, "before")
    told = []
    configure = Agent.configure

    async def noted(agent: Agent, hostname: str, *more: Any, **named: Any) -> None:
        told.append((hostname, world.is_paused(machine.id)))
        await configure(agent, hostname, *more, **named)

    monkeypatch.setattr(Agent, "configure", noted)
    await fleet.snapshot("web", "one")
    assert told == [("web", False)]
    # Also where nothing came of it.
    world.process(machine).refuses_to_save = True
    with pytest.raises(GuestError):
        await fleet.snapshot("web", "two")
    assert told == [("web", False)] * 2
    world.process(machine).refuses_to_save = False
    await fleet.pause("web")
    await fleet.snapshot("web", "two")
    assert len(told) == 2


async def test_nobody_waits_for_a_machine_that_dies_as_it_is_kept(
    world: World, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "_AGENT_WAIT_S", 3600.0)
    machine = await serving(fleet, "before")
    process = world.process(machine)

    async def dies(_: object) -> None:
        process.end(Exit(signal=9))
        raise GuestError("the machine's process has ended")

    monkeypatch.setattr(process, "snapshot", dies)
    with pytest.raises(GuestError, match="has ended"):
        await fleet.snapshot("web", "one")
    assert (await fleet.wait("web", Status.FAILED, 30)).status is Status.FAILED
    assert folders(world, "snapshots") == set()


async def test_a_machine_is_put_back_to_what_it_was(world: World, fleet: Fleet) -> None:
    machine = await serving(fleet, "before")
    await fleet.snapshot("web", "one")
    await write(fleet, "web", "after")
    lifecycle = fleet.get("web").lifecycle
    back = await fleet.restore("web", "one")
    assert (back.status, back.pid) == (Status.SLEEPING, None)
    assert world.driver.alive() == set()
    assert world.routes.statuses()[-1] is Status.SLEEPING
    started = await fleet.start("web")
    assert started.last_start is not None
    assert started.last_start.how is How.MEMORY
    assert started.lifecycle == lifecycle + 1
    # Its server has never ended.
    assert await page(fleet, "web") == b"before\n"
    # As often as one likes, from whatever it is.
    for act in (fleet.stop, fleet.sleep, fleet.pause):
        await write(fleet, "web", "other")
        await act("web")
        await fleet.restore("web", "one")
        await fleet.start("web")
        assert await page(fleet, "web") == b"before\n"
    assert folders(world, "machines") == {machine.id}
    assert "ready" in (await console(fleet, "web")).decode()


async def test_a_disk_alone_is_put_back_to_one_that_is_off(fleet: Fleet) -> None:
    await serving(fleet, "before")
    await fleet.stop("web")
    assert not (await fleet.snapshot("web", "disk")).has_memory
    await fleet.start("web")
    await write(fleet, "web", "after")
    assert (await fleet.restore("web", "disk")).status is Status.STOPPED
    started = await fleet.start("web")
    assert started.last_start is not None
    assert started.last_start.how is not How.MEMORY
    assert (await run(fleet, "web", "cat", "/w/index.html")).stdout == b"before\n"


async def test_what_sleeps_is_kept_with_its_memory(fleet: Fleet) -> None:
    await serving(fleet, "before")
    await fleet.sleep("web")
    assert (await fleet.snapshot("web", "one")).has_memory
    await fleet.start("web")
    await write(fleet, "web", "after")
    await fleet.restore("web", "one")
    await fleet.start("web")
    assert await page(fleet, "web") == b"before\n"


async def test_clones_have_all_of_their_own(world: World, fleet: Fleet) -> None:
    machine = await serving(fleet, "before")
    await fleet.snapshot("web", "one")
    clones = await asyncio.gather(
        *(fleet.clone("one", name, MachineChange(labels={"of": name})) for name in ("a", "b", "c"))
    )
    assert {one.status for one in clones} == {Status.SLEEPING}
    assert {one.spec.labels["of"] for one in clones} == {"a", "b", "c"}
    assert len({one.id for one in clones} | {machine.id}) == 4
    assert len({one.network.guest_mac for one in (*clones, machine)}) == 4
    await asyncio.gather(*(fleet.start(one.id) for one in clones))
    for name in ("a", "b", "c"):
        assert await page(fleet, name) == b"before\n"
        await write(fleet, name, name)
    for name in ("a", "b", "c"):
        assert await page(fleet, name) == f"{name}\n".encode()
        assert (await run(fleet, name, "hostname")).stdout == f"{name}\n".encode()
    assert await page(fleet, "web") == b"before\n"
    # They need neither the snapshot nor the machine.
    await fleet.remove_snapshot("one")
    await fleet.delete("web", force=True)
    await fleet.stop("a")
    await fleet.start("a")
    assert (await run(fleet, "a", "cat", "/w/index.html")).stdout == b"a\n"
    assert folders(world, "snapshots") == set()


async def test_a_snapshot_outlives_its_machine(world: World, fleet: Fleet) -> None:
    machine = await serving(fleet, "before")
    await fleet.stop("web")
    await fleet.snapshot("web", "disk")
    await fleet.delete("web", force=False)
    assert folders(world, "machines") == set()
    await fleet.close()
    fleet = await world.fleet()
    [info] = fleet.snapshots(None)
    assert (info.name, info.machine_id) == ("disk", machine.id)
    with pytest.raises(NotFoundError):
        fleet.snapshots("web")
    clone = await fleet.clone("disk", "web", MachineChange(exposed_ports=()))
    assert (clone.status, clone.ports) == (Status.STOPPED, ())
    await fleet.start("web")
    assert (await run(fleet, "web", "cat", "/w/index.html")).stdout == b"before\n"


async def test_what_can_not_be_kept_or_put_back_is_refused(world: World, fleet: Fleet) -> None:
    machine = await fleet.create(spec())
    with pytest.raises(InvalidStateError, match="was never started"):
        await fleet.snapshot("web", "one")
    await fleet.start("web")
    await fleet.snapshot("web", "one")
    with pytest.raises(ConflictError, match="another snapshot is called 'one'"):
        await fleet.snapshot("web", "one")
    with pytest.raises(NotFoundError, match="Snapshot not found: none"):
        await fleet.restore("web", "none")
    with pytest.raises(NotFoundError, match="Snapshot not found: none"):
        await fleet.clone("none", "a", MachineChange())
    with pytest.raises(ConflictError, match="another machine is called 'web'"):
        await fleet.clone("one", "web", MachineChange())
    await fleet.create(spec("other"))
    with pytest.raises(InvalidStateError, match=r"is of machine 'web'.*clone"):
        await fleet.restore("other", "one")
    # The cards of a memory are there: they can't be others.
    with pytest.raises(InvalidStateError, match="egress"):
        await fleet.clone("one", "a", MachineChange(egress="none"))
    world.driver.refuses_to_wake = True
    with pytest.raises(ValidationError, match="can't be gone on from"):
        await fleet.restore("web", "one")
    with pytest.raises(ValidationError, match="can't be gone on from"):
        await fleet.clone("one", "a", MachineChange())
    # All is as it was.
    assert fleet.get("web").status is Status.RUNNING
    assert world.driver.alive() == {machine.id}
    assert {one.spec.name for one in fleet.machines()} == {"web", "other"}
    assert folders(world, "machines") == {machine.id}


async def test_a_snapshot_that_fails_leaves_nothing(world: World, fleet: Fleet) -> None:
    machine = await fleet.create(spec())
    await fleet.start("web")
    world.process(machine).refuses_to_save = True
    with pytest.raises(GuestError, match="could not be saved"):
        await fleet.snapshot("web", "one")
    assert (await run(fleet, "web", "true")).exit_code == 0
    assert folders(world, "snapshots") == set()
    world.process(machine).refuses_to_save = False
    await fleet.snapshot("web", "one")


async def test_a_restore_that_fails_leaves_nothing(
    world: World, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = await serving(fleet, "before")
    await fleet.snapshot("web", "one")

    async def full(*_: object) -> None:
        raise CapacityError("no room")

    with monkeypatch.context() as patched:
        patched.setattr(world.driver, "copy", full)
        with pytest.raises(CapacityError, match="no room"):
            await fleet.restore("web", "one")
        with pytest.raises(CapacityError, match="no room"):
            await fleet.clone("one", "copy", MachineChange())
    assert fleet.get("web").status is Status.RUNNING
    assert await page(fleet, "web") == b"before\n"
    assert {one.spec.name for one in fleet.machines()} == {"web"}
    assert folders(world, "machines") == {machine.id}
    await fleet.clone("one", "copy", MachineChange())


async def test_many_at_once_are_one_after_the_other(world: World, fleet: Fleet) -> None:
    await serving(fleet, "before")
    answers = await asyncio.gather(
        *(fleet.snapshot("web", f"s{number % 5}") for number in range(10)),
        *(fleet.restore("web", "s0") for _ in range(3)),
        fleet.start("web"),
        return_exceptions=True,
    )
    wrong = [one for one in answers if isinstance(one, BaseException)]
    assert all(isinstance(one, HyperfleetError) for one in wrong)
    assert {info.name for info in fleet.snapshots("web")} == {f"s{number}" for number in range(5)}
    assert fleet.get("web").status is Status.RUNNING
    assert await page(fleet, "web") == b"before\n"
    assert folders(world, "snapshots") == {f"s{number}" for number in range(5)}


async def test_what_is_being_copied_is_not_removed(
    fleet: Fleet, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await serving(fleet, "before")
    await fleet.snapshot("web", "one")
    began, go_on = asyncio.Event(), asyncio.Event()
    copy = world.driver.copy

    async def slow(*folders: object) -> None:
        began.set()
        await go_on.wait()
        await copy(*folders)  # type: ignore[arg-type]

    monkeypatch.setattr(world.driver, "copy", slow)
    cloning = asyncio.create_task(fleet.clone("one", "a", MachineChange()))
    await began.wait()
    with pytest.raises(ConflictError, match="try again"):
        await fleet.remove_snapshot("one")
    go_on.set()
    await cloning
    await fleet.remove_snapshot("one")
    await fleet.start("a")
    assert await page(fleet, "a") == b"before\n"


async def test_a_damaged_one_is_left_alone(world: World, fleet: Fleet) -> None:
    await serving(fleet, "before")
    await fleet.snapshot("web", "one")
    await fleet.close()
    (world.home / "snapshots" / "one" / "snapshot.json").write_text("{")
    fleet = await world.fleet()
    assert list(fleet.snapshots(None)) == []
    with pytest.raises(ConflictError):
        await fleet.snapshot("web", "one")
    assert folders(world, "snapshots") == {"one"}
