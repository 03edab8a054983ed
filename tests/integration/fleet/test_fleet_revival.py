"""Machines that ended without their user's wish come up again; those that were stopped do not."""

from __future__ import annotations

import contextlib

import pytest

from hyperfleet.errors import GuestError, ValidationError
from hyperfleet.failpoints import Point
from hyperfleet.fleet import Fleet, Limits
from hyperfleet.lifecycle import Status
from hyperfleet.machine import Machine, MachineChange, Restart
from hyperfleet.vmm.cgroup import OutOfMemory
from hyperfleet.vmm.driver import Exit

from .world import World, run, spec

SOON = Limits(first_wait=0.01, longest_wait=0.02, calm=600, tries=3)
LATER = Limits(first_wait=600, longest_wait=600, calm=600, tries=3)


async def _dies(world: World, machine: Machine) -> None:
    world.process(machine).end(world.died)
    await world.routes.until(lambda one: one.status is not Status.RUNNING)


async def _until(world: World, fleet: Fleet, lifecycle: int) -> Machine:
    """The machine, in its so-manyeth life."""
    await world.routes.until(lambda one: (one.status, one.lifecycle) == (Status.RUNNING, lifecycle))
    return fleet.get("web")


async def test_one_that_died_is_started_again(world: World) -> None:
    fleet = await world.fleet(revival=SOON)
    machine = await fleet.create(spec(restart=Restart.ON_FAILURE))
    await fleet.start("web")
    await _dies(world, machine)
    [died] = [one for one in world.routes.told if getattr(one, "status", "") is Status.FAILED]
    assert isinstance(died, Machine)
    assert died.next_start_at is not None
    assert "killed by signal 9" in (died.error_message or "")
    again = await _until(world, fleet, 2)
    assert (again.restarts, again.next_start_at, again.error_message) == (1, None, None)
    assert (await run(fleet, "web", "echo", "up")).stdout == b"up\n"


@pytest.mark.parametrize("policy", Restart)
async def test_one_that_powered_itself_off(world: World, policy: Restart) -> None:
    fleet = await world.fleet(revival=LATER)
    await fleet.create(spec(restart=policy))
    await fleet.start("web")
    with contextlib.suppress(GuestError):
        await run(fleet, "web", "poweroff")
    stopped = await fleet.wait("web", Status.STOPPED, 5)
    assert (stopped.next_start_at is not None) == (policy is Restart.ALWAYS)


async def test_it_is_given_up_after_so_many_tries(world: World) -> None:
    fleet = await world.fleet(revival=SOON)
    machine = await fleet.create(spec(restart=Restart.ALWAYS))
    await fleet.start("web")
    for life in range(SOON.tries + 1):
        await _until(world, fleet, life + 1)
        world.process(machine).end(world.died)
    last = await world.routes.until(lambda one: "given up" in (one.error_message or ""))
    assert (last.status, last.restarts, last.next_start_at) == (Status.FAILED, 3, None)
    assert (last.error_message or "").startswith("given up after 3 restarts in a row: ")
    assert last.lifecycle == 1 + SOON.tries
    assert world.driver.process(machine.id) is None
    # Its user may try, and all tries are there again.
    await fleet.start("web")
    assert fleet.get("web").restarts == 0


async def test_a_start_of_its_users_that_fails_is_not_tried_again(world: World) -> None:
    fleet = await world.fleet(revival=SOON)
    await fleet.create(spec(restart=Restart.ALWAYS, faults="fake.boot=panic"))
    with pytest.raises(GuestError):
        await fleet.start("web")
    assert fleet.get("web").next_start_at is None


async def test_one_that_can_not_be_started_again_is_tried_and_given_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = await world.fleet(revival=SOON)
    machine = await fleet.create(spec(restart=Restart.ALWAYS))
    await fleet.start("web")

    def gone(_path: str) -> None:
        raise ValidationError("kernel_image_path: gone")

    monkeypatch.setattr(world.images, "kernel", gone)
    await _dies(world, machine)
    last = await world.routes.until(lambda one: "given up" in (one.error_message or ""))
    assert last.status is Status.FAILED
    assert "kernel_image_path: gone" in (last.error_message or "")


async def test_a_stop_calls_it_off_for_good(world: World) -> None:
    fleet = await world.fleet(revival=LATER)
    machine = await fleet.create(spec(restart=Restart.ALWAYS, autostart=True))
    await fleet.start("web")
    await _dies(world, machine)
    assert fleet.get("web").next_start_at is not None
    stopped = await fleet.stop("web")
    assert (stopped.status, stopped.next_start_at) == (Status.STOPPED, None)
    await fleet.close()
    assert (await world.fleet(host_boot="another")).get("web").status is Status.STOPPED


async def test_a_start_does_not_wait_for_it(world: World) -> None:
    fleet = await world.fleet(revival=LATER)
    machine = await fleet.create(spec(restart=Restart.ALWAYS))
    await fleet.start("web")
    await _dies(world, machine)
    started = await fleet.start("web")
    assert (started.status, started.restarts, started.next_start_at) == (Status.RUNNING, 0, None)


async def test_another_policy_calls_it_off(world: World) -> None:
    fleet = await world.fleet(revival=LATER)
    machine = await fleet.create(spec(restart=Restart.ALWAYS))
    await fleet.start("web")
    await _dies(world, machine)
    labelled = await fleet.change("web", MachineChange(labels={"a": "b"}))
    assert labelled.next_start_at is not None
    changed = await fleet.change("web", MachineChange(restart=Restart.NEVER))
    assert (changed.spec.restart, changed.next_start_at) == (Restart.NEVER, None)


async def test_one_that_waits_is_deleted(world: World) -> None:
    fleet = await world.fleet(revival=SOON)
    machine = await fleet.create(spec(restart=Restart.ALWAYS))
    await fleet.start("web")
    await fleet.close()
    waiting = await world.fleet(revival=LATER)
    await _dies(world, machine)
    await waiting.delete("web", force=False)
    assert await world.store.all() == []


@pytest.mark.parametrize("crash", [False, True])
async def test_the_next_control_plane_keeps_the_time(world: World, *, crash: bool) -> None:
    first = await world.fleet(revival=LATER)
    machine = await first.create(spec(restart=Restart.ALWAYS))
    await first.start("web")
    await _dies(world, machine)
    at = first.get("web").next_start_at
    await (world.crash() if crash else first.close())
    second = await world.fleet(revival=LATER)
    assert (second.get("web").status, second.get("web").next_start_at) == (Status.FAILED, at)


async def test_one_that_died_meanwhile_is_started_by_its_policy(world: World) -> None:
    machine = await (await world.fleet()).create(spec(restart=Restart.ON_FAILURE))
    await (await world.fleet()).start("web")
    process = world.process(machine)
    await world.crash()
    process.end(world.died)
    fleet = await world.fleet(revival=SOON)
    assert (await _until(world, fleet, 2)).restarts == 1


@pytest.mark.parametrize(
    ("want", "words"),
    [
        (OutOfMemory.OWN, "HYPERFLEET_CGROUP_MEMORY_MIB"),
        (OutOfMemory.HOST, "the host was out of memory"),
    ],
)
@pytest.mark.parametrize("seen", [False, True])
async def test_one_that_was_killed_for_want_of_memory_says_so(
    world: World, want: OutOfMemory, words: str, *, seen: bool
) -> None:
    fleet = await world.fleet()
    machine = await fleet.create(spec())
    await fleet.start("web")
    killed = Exit(signal=9, out_of_memory=want)
    if seen:
        world.process(machine).end(killed)
        await world.routes.until(lambda one: one.status is Status.FAILED)
    else:
        process = world.process(machine)
        await world.crash()
        process.end(world.died)
        world.driver.known = Exit(out_of_memory=want)
        fleet = await world.fleet()
    assert words in (fleet.get("web").error_message or "")


@pytest.mark.parametrize("autostart", [False, True])
async def test_after_a_reboot_of_the_host(world: World, *, autostart: bool) -> None:
    first = await world.fleet(host_boot="one")
    machine = await first.create(spec(autostart=autostart))
    await first.create(spec("stopped", autostart=True))
    await first.start("stopped")
    await first.stop("stopped")
    await first.start("web")
    process = world.process(machine)
    await world.crash()
    process.end(world.died)
    second = await world.fleet(host_boot="two")
    if autostart:
        assert (await _until(world, second, 2)).host_boot == "two"
    else:
        assert second.get("web").status is Status.FAILED
        assert (second.get("web").error_message or "").startswith("the host was started anew")
    assert second.get("stopped").status is Status.STOPPED


@pytest.mark.parametrize(
    "point",
    [Point.STOP_RECORDED, Point.STOP_ENDED, Point.STOP_DONE, Point.RESTART_STOPPED],
)
async def test_a_restart_that_was_cut_off_is_completed(world: World, point: Point) -> None:
    fleet = await world.fleet()
    await fleet.create(spec())
    await fleet.start("web")
    await world.crash_at(point, fleet.restart("web"))
    second = await world.fleet()
    again = await _until(world, second, 2)
    assert again.next_start_at is None
    assert len(world.driver.processes()) == 1


async def test_what_a_former_run_died_of_is_not_told_of_the_next(world: World) -> None:
    fleet = await world.fleet(revival=LATER)
    machine = await fleet.create(spec())
    console = world.launch(machine).directory / "console.log"
    for words in ("Kernel panic - not syncing: the first\n", "nothing in particular\n"):
        await fleet.start("web")
        with console.open("a") as file:
            file.write(words)
        await _dies(world, machine)
        reason = (await fleet.wait("web", Status.FAILED, 5)).error_message
        assert reason is not None
        assert reason.endswith(f"; its console's last words:\n{words.strip()}")
