"""Starts that are clones of a template, and those that should have been."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator

import pytest

from hyperfleet.errors import HyperfleetError, OperationTimeoutError
from hyperfleet.fleet import Fleet, templating
from hyperfleet.lifecycle import Status
from hyperfleet.machine import How, Machine
from support.data_plane import until

from .world import World, spec


async def _started(fleet: Fleet, name: str, faults: str = "") -> Machine:
    await fleet.create(spec(name, faults))
    return await fleet.start(name)


@contextlib.asynccontextmanager
async def _one_boots(world: World, fleet: Fleet) -> AsyncIterator[None]:
    """For as long as the block lasts, a machine boots."""
    world.driver.break_disk_of("slow")
    await fleet.create(spec("slow"))
    start = asyncio.create_task(fleet.start("slow"))
    await until(lambda: bool(world.driver.alive()))
    yield
    await fleet.stop("slow")
    with pytest.raises(HyperfleetError):
        await start


async def test_after_a_boot_the_next_start_is_a_clone(world: World, fleet: Fleet) -> None:
    first = await _started(fleet, "one")
    assert first.last_start is not None
    assert first.last_start.how is How.BOOT
    await until(lambda: bool(world.driver.templates()))
    second = await _started(fleet, "two")
    assert second.last_start is not None
    assert second.last_start.how is How.TEMPLATE
    assert second.last_start.note is None
    # Also of one that has a disk already; and what is recorded is what was told.
    await fleet.stop("one")
    again = await fleet.start("one")
    assert again.last_start is not None
    assert again.last_start.how is How.TEMPLATE
    assert {machine.id: machine.last_start for machine in await world.store.all()} == {
        again.id: again.last_start,
        second.id: second.last_start,
    }


@pytest.mark.parametrize(
    ("fault", "why"),
    [("never", "its agent has not answered"), ("dies", r"it ended \(its process was killed")],
)
async def test_a_clone_that_does_not_come_up_boots_and_says_so(
    world: World, fault: str, why: str
) -> None:
    fleet = await world.fleet(clone_deadline=0.2)
    faults = f"fake.clone={fault}"
    await _started(fleet, "one", faults)
    await until(lambda: bool(world.driver.templates()))
    (template,) = world.driver.templates()
    second = await _started(fleet, "two", faults)
    assert second.status is Status.RUNNING
    assert second.last_start is not None
    assert second.last_start.how is How.BOOT
    assert second.last_start.note is not None
    assert second.last_start.note.startswith(f"a clone of template {template.id} did not come up")
    assert why.replace("\\", "") in second.last_start.note
    assert world.driver.alive() == {machine.id for machine in fleet.machines()}
    # Of no use, so it is gone, and no other is made of that shape.
    assert world.driver.templates() == []
    third = await _started(fleet, "three", faults)
    assert third.last_start is not None
    assert (third.last_start.how, third.last_start.note) == (How.BOOT, None)
    assert world.driver.templates() == []


async def test_a_template_is_not_to_blame_for_what_does_not_boot_either(world: World) -> None:
    fleet = await world.fleet(boot_deadline=0.5, clone_deadline=0.1)
    await _started(fleet, "one", "fake.delay=0.2")
    await until(lambda: bool(world.driver.templates()))
    # Of the same shape, and its disk is broken.
    world.driver.break_disk_of("two")
    await fleet.create(spec("two", "fake.delay=0.2"))
    with pytest.raises(OperationTimeoutError, match=r"before it booted, a clone of template"):
        await fleet.start("two")
    assert len(world.driver.templates()) == 1


async def test_templates_wait_for_whoever_waits_for_a_boot(world: World) -> None:
    fleet = await world.fleet(boots_at_once=1)
    for name in ("one", "two", "three"):
        await fleet.create(spec(name, "fake.delay=0.05"))
    starts = [asyncio.create_task(fleet.start(name)) for name in ("one", "two", "three")]
    await starts[0]
    assert world.driver.templates() == []
    assert [(await start).last_start for start in starts]
    await until(lambda: bool(world.driver.templates()))


async def test_a_template_is_made_though_its_machine_is_gone(world: World) -> None:
    fleet = await world.fleet(boots_at_once=2)
    async with _one_boots(world, fleet):
        await _started(fleet, "brief")
        await fleet.delete("brief", force=True)
        assert world.driver.templates() == []
    await until(lambda: bool(world.driver.templates()))


async def test_where_boots_do_not_end_a_template_has_a_turn_among_them(world: World) -> None:
    """Machines of one shape that live for a moment, one after another, with never a pause."""
    fleet = await world.fleet(boots_at_once=1, template_wait=0.05)
    over = asyncio.Event()
    hows: list[How] = []

    async def live(name: str) -> None:
        while not over.is_set():
            machine = await _started(fleet, name, "fake.delay=0.02")
            assert machine.last_start is not None
            hows.append(machine.last_start.how)
            await fleet.delete(name, force=True)

    lives = [asyncio.create_task(live(name)) for name in ("one", "two", "three")]
    await until(lambda: How.TEMPLATE in hows)
    over.set()
    await asyncio.gather(*lives)
    assert hows[0] is How.BOOT


async def test_the_template_that_most_have_booted_for_is_made_first(world: World) -> None:
    fleet = await world.fleet(boots_at_once=1)
    shapes = ("fake.delay=0.04", "fake.delay=0.05", "fake.delay=0.04", "fake.delay=0.06")
    names = [f"m{number}" for number in range(len(shapes))]
    for name, faults in zip(names, shapes, strict=True):
        await fleet.create(spec(name, faults))
    await asyncio.gather(*(fleet.start(name) for name in names))
    await until(lambda: len(world.driver.templates()) == 3)
    # The last made first.
    made = [template.kernel_args for template in reversed(world.driver.templates())]
    assert made == ["fake.delay=0.04", "fake.delay=0.06", "fake.delay=0.05"]


async def test_so_many_templates_can_be_wanted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(templating, "_MOST_WANTED", 2)
    fleet = await world.fleet(boots_at_once=2)
    async with _one_boots(world, fleet):
        for number, mib in enumerate((64, 128, 64, 256)):
            await fleet.create(spec(f"m{number}", mem_size_mib=mib))
            await fleet.start(f"m{number}")
        assert world.driver.templates() == []
    # Of two that one machine has booted for, the last one first; the third was forgotten.
    await until(lambda: len(world.driver.templates()) == 2)
    assert [template.mem_size_mib for template in world.driver.templates()] == [256, 64]
    await fleet.close()
    assert len(world.driver.templates()) == 2


async def test_a_server_that_ends_makes_no_more(world: World, fleet: Fleet) -> None:
    world.driver.preparing = asyncio.Event()
    await _started(fleet, "one")
    await world.driver.preparing.wait()
    async with asyncio.timeout(5):
        await fleet.close()
    assert world.driver.templates() == []


async def test_a_template_takes_none_of_the_disk_that_stays_free(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.home.mkdir(exist_ok=True)
    # Half a GiB is to be had: enough for a machine, not for what a template of it has in memory.
    left = shutil.disk_usage(world.home).free - (512 << 20)
    fleet = await world.fleet(disk_reserve_mib=left >> 20)
    await fleet.create(spec("one", mem_size_mib=1024))
    await fleet.start("one")
    await until(lambda: "no template like machine" in caplog.text)
    assert "what it has in memory may take 1024 MiB" in caplog.text
    assert world.driver.templates() == []
    # One that is small enough is made.
    await _started(fleet, "two")
    await until(lambda: bool(world.driver.templates()))
