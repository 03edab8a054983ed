"""Machines that sleep, when they are told to or when nobody uses them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from hyperfleet.errors import GuestError, InvalidStateError
from hyperfleet.fleet import Fleet
from hyperfleet.fleet.capacity import Room
from hyperfleet.fleet.state import now
from hyperfleet.guest.values import ProcessRequest
from hyperfleet.lifecycle import Status
from hyperfleet.machine import How, Machine, MachineChange
from hyperfleet.proxy.interface import Activity
from hyperfleet.vmm.driver import Exit

from .world import World, run, spec

SERVE = "echo hi > /w/index.html; httpd -p 80 -h /w"


async def serving(fleet: Fleet) -> Machine:
    machine = await fleet.create(spec())
    await fleet.start("web")
    await run(fleet, "web", "sh", "-c", SERVE)
    return machine


async def test_a_machine_goes_on_where_it_fell_asleep(world: World, fleet: Fleet) -> None:
    await serving(fleet)
    lifecycle = fleet.get("web").lifecycle
    asleep = await fleet.sleep("web")
    assert (asleep.status, asleep.pid) == (Status.SLEEPING, None)
    assert (await fleet.sleep("web")).status is Status.SLEEPING
    assert world.driver.alive() == set()
    assert world.routes.statuses()[-1] is Status.SLEEPING
    with pytest.raises(InvalidStateError, match="is sleeping, not running; start it first"):
        await run(fleet, "web", "true")
    woken = await fleet.start("web")
    assert woken.last_start is not None
    assert woken.last_start.how is How.MEMORY
    # Its server has never ended; to the data plane it is another life.
    [port], _ = await fleet.ports("web")
    assert port.listening
    assert woken.lifecycle == lifecycle + 1


async def test_a_paused_machine_sleeps_too(world: World, fleet: Fleet) -> None:
    await serving(fleet)
    await fleet.pause("web")
    assert (await fleet.sleep("web")).status is Status.SLEEPING
    assert (await fleet.start("web")).status is Status.RUNNING


async def test_a_sleeping_machine_is_stopped_restarted_and_deleted(
    world: World, fleet: Fleet
) -> None:
    machine = await serving(fleet)
    directory = world.home / "machines" / machine.id
    await fleet.sleep("web")
    assert (directory / "memory").exists()
    with pytest.raises(InvalidStateError, match="stop it first, or delete with force=true"):
        await fleet.delete("web", force=False)
    assert (await fleet.stop("web")).status is Status.STOPPED
    assert not (directory / "memory").exists()
    started = await fleet.start("web")
    assert started.last_start is not None
    assert started.last_start.how is not How.MEMORY
    await fleet.sleep("web")
    restarted = await fleet.restart("web")
    assert restarted.last_start is not None
    assert restarted.last_start.how is not How.MEMORY
    await fleet.sleep("web")
    await fleet.delete("web", force=True)
    assert not directory.exists()


async def test_what_does_not_run_does_not_sleep(fleet: Fleet) -> None:
    await fleet.create(spec())
    with pytest.raises(InvalidStateError, match="pending and can't be put to sleep: start it"):
        await fleet.sleep("web")


async def test_a_memory_that_can_not_be_saved_leaves_it_as_it_was(
    world: World, fleet: Fleet
) -> None:
    machine = await serving(fleet)
    for status in (Status.RUNNING, Status.PAUSED):
        if status is Status.PAUSED:
            await fleet.pause("web")
        world.process(machine).refuses_to_save = True
        with pytest.raises(GuestError, match="could not be saved"):
            await fleet.sleep("web")
        assert fleet.get("web").status is status
        assert world.routes.statuses()[-1] is status
    await fleet.resume("web")
    await run(fleet, "web", "true")


async def test_one_that_can_not_be_asked_to_go_on_is_looked_at_as_before(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = await world.fleet(poll_interval=0.02)
    machine = await serving(fleet)
    process = world.process(machine)

    async def fails() -> None:
        raise GuestError("QEMU's monitor failed")

    with monkeypatch.context() as patch:
        patch.setattr(process, "save", fails)
        patch.setattr(process, "resume", fails)
        with pytest.raises(GuestError, match="monitor failed"):
            await fleet.sleep("web")
    assert fleet.get("web").status is Status.RUNNING
    process.guest.sockets.clear()
    await world.routes.until(lambda told: not any(port.listening for port in told.ports))


@pytest.mark.parametrize("paused", [False, True])
async def test_a_machine_that_dies_as_it_falls_asleep_has_failed_and_does_not_sleep(
    world: World, fleet: Fleet, monkeypatch: pytest.MonkeyPatch, paused: bool
) -> None:
    machine = await serving(fleet)
    if paused:
        await fleet.pause("web")
    process = world.process(machine)

    async def dies() -> None:
        process.end(Exit(signal=9))
        raise GuestError("the machine's process has ended")

    monkeypatch.setattr(process, "save", dies)
    with pytest.raises(GuestError, match="has ended"):
        await fleet.sleep("web")
    failed = await fleet.wait("web", Status.FAILED, 30)
    assert failed.error_message == "the machine died (its process was killed by signal 9)"
    assert world.routes.statuses()[-1] is Status.FAILED
    started = await fleet.start("web")
    assert started.last_start is not None
    assert started.last_start.how is not How.MEMORY


async def test_a_sleeper_sleeps_on_under_the_next_control_planes(world: World) -> None:
    await serving(await world.fleet())
    fleet = await world.fleet()
    await fleet.sleep("web")
    for orderly in (True, False):
        await (fleet.close() if orderly else world.crash())
        fleet = await world.fleet(host_boot=f"another {orderly}")
        assert fleet.get("web").status is Status.SLEEPING
        assert world.driver.alive() == set()
    assert (await fleet.start("web")).status is Status.RUNNING


async def test_a_sleeper_holds_no_room(world: World) -> None:
    fleet = await world.fleet(room=Room(mem_mib=100, vcpus=8))
    await serving(fleet)
    await fleet.create(spec("two"))
    await fleet.sleep("web")
    await fleet.start("two")
    assert (await fleet.sleep("two")).status is Status.SLEEPING
    await fleet.start("web")


async def test_one_that_can_not_be_woken_sleeps_on(world: World, fleet: Fleet) -> None:
    await serving(fleet)
    await fleet.sleep("web")
    world.driver.refuses_to_wake = True
    with pytest.raises(GuestError, match="can't be gone on from"):
        await fleet.start("web")
    machine = fleet.get("web")
    assert machine.status is Status.SLEEPING
    assert "can't be gone on from" in (machine.error_message or "")
    world.driver.refuses_to_wake = False
    woken = await fleet.start("web")
    assert (woken.status, woken.error_message) == (Status.RUNNING, None)


# By itself.


async def asleep(fleet: Fleet) -> Machine:
    return await fleet.wait("web", Status.SLEEPING, 10)


async def test_a_machine_that_nobody_uses_falls_asleep(world: World, fleet: Fleet) -> None:
    await fleet.create(spec(sleep_after_s=1))
    await fleet.start("web")
    began = asyncio.get_running_loop().time()
    with fleet.follow("web", None) as follower:
        await asleep(fleet)
        batch = await follower.next(1)
    assert asyncio.get_running_loop().time() - began >= 1
    assert batch is not None
    assert [event.cause for event in batch.events if event.status is Status.SLEEPING] == ["policy"]
    # Woken, it has its time again.
    await fleet.start("web")
    assert fleet.get("web").status is Status.RUNNING
    await asleep(fleet)


@pytest.mark.parametrize(
    "activity",
    [
        Activity(requests_in_flight=1),
        Activity(requests_in_flight=2, tunnels=1),
        lambda: Activity(last_at=now()),
        None,
    ],
    ids=["a request", "a request beside a tunnel", "a byte", "not told"],
)
async def test_what_is_in_use_stays_awake(
    world: World, fleet: Fleet, activity: Activity | Callable[[], Activity] | None
) -> None:
    machine = await fleet.create(spec(sleep_after_s=1))
    world.traffic.of[machine.id] = activity
    await fleet.start("web")
    await asyncio.sleep(1.1)
    assert not await fleet.is_idle("web")
    assert fleet.get("web").status is Status.RUNNING
    # A tunnel that carries nothing keeps nobody awake.
    world.traffic.of[machine.id] = Activity(requests_in_flight=1, tunnels=1)
    await asleep(fleet)


async def test_a_process_and_a_file_are_uses(world: World, fleet: Fleet) -> None:
    await fleet.create(spec(sleep_after_s=1))
    await fleet.start("web")
    stream = await fleet.processes("web").run(ProcessRequest(argv=("cat",), stdin=True))
    await asyncio.sleep(1.1)
    assert not await fleet.is_idle("web")
    await stream.write(b"", eof=True)
    assert await stream.read() is None
    await stream.ended()
    await asleep(fleet)


async def test_a_request_at_that_very_moment_keeps_it_awake(world: World, fleet: Fleet) -> None:
    machine = await fleet.create(spec(sleep_after_s=1))
    await fleet.start("web")
    told = len(world.routes.told)
    turned_away = asyncio.Event()

    def activity() -> Activity:
        if world.routes.statuses()[-1] is not Status.SLEEPING:
            return Activity()
        turned_away.set()
        return Activity(requests_in_flight=1)

    world.traffic.of[machine.id] = activity
    await turned_away.wait()
    await fleet.wait("web", Status.RUNNING, 5)
    assert world.routes.statuses()[told:][:2] == [Status.SLEEPING, Status.RUNNING]
    assert fleet.get("web").status is Status.RUNNING
    await run(fleet, "web", "true")


async def test_it_may_be_told_to_stay_awake(world: World, fleet: Fleet) -> None:
    await fleet.create(spec(sleep_after_s=1))
    await fleet.start("web")
    await fleet.change("web", MachineChange(sleep_after_s=0))
    await asyncio.sleep(1.1)
    assert fleet.get("web").status is Status.RUNNING
    assert not await fleet.is_idle("web")


async def test_news_of_it_is_no_use_of_it(fleet: Fleet) -> None:
    await fleet.create(spec(sleep_after_s=1))
    await fleet.start("web")
    sleeping = asyncio.create_task(asleep(fleet))
    while not sleeping.done():
        await fleet.change("web", MachineChange(labels={"a": "b"}))
        await asyncio.sleep(0.05)
    assert (await sleeping).status is Status.SLEEPING


async def test_after_a_crash_it_still_falls_asleep(world: World) -> None:
    fleet = await world.fleet()
    await fleet.create(spec(sleep_after_s=1))
    await fleet.start("web")
    await world.crash()
    await asleep(await world.fleet())
