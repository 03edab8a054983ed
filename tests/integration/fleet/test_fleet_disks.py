"""Data disks, which outlive machines, and which no two have."""

from __future__ import annotations

import asyncio

import pytest

from hyperfleet.errors import (
    ConflictError,
    InvalidStateError,
    NotFoundError,
    ValidationError,
)
from hyperfleet.fleet import Fleet
from hyperfleet.lifecycle import Status
from hyperfleet.machine import Machine, MachineChange, MachineDisk

from .world import World, run, spec

DATA = (MachineDisk(disk="data", path="/d"),)


async def holding(fleet: Fleet, name: str = "web") -> Machine:
    await fleet.disks.create("data", 16)
    machine = await fleet.create(spec(name, disks=DATA))
    await fleet.start(name)
    return machine


async def content(fleet: Fleet, ref: str) -> bytes:
    return (await run(fleet, ref, "cat", "/d/file")).stdout


async def test_what_is_on_it_outlives_machines(world: World, fleet: Fleet) -> None:
    machine = await holding(fleet)
    await run(fleet, "web", "sh", "-c", "echo kept > /d/file; echo gone > /file")
    [disk] = fleet.disks.every()
    assert (disk.machine_id, disk.machine_name, disk.size) == (machine.id, "web", 16 << 20)
    await fleet.stop("web")
    await fleet.start("web")
    assert await content(fleet, "web") == b"kept\n"
    await fleet.delete("web", force=True)
    assert fleet.disks.get("data").machine_id is None
    # The next control plane knows of it as well.
    await fleet.close()
    fleet = await world.fleet()
    await fleet.create(spec("other", disks=(MachineDisk(disk="data", path="/elsewhere"),)))
    await fleet.start("other")
    found = await run(fleet, "other", "cat", "/elsewhere/file")
    assert found.stdout == b"kept\n"
    assert (await run(fleet, "other", "cat", "/file")).exit_code == 1


async def test_a_disk_is_one_machines_alone(world: World, fleet: Fleet) -> None:
    await holding(fleet)
    with pytest.raises(ConflictError, match="'data' is attached to machine"):
        await fleet.create(spec("other", disks=DATA))
    await fleet.create(spec("other"))
    with pytest.raises(ConflictError, match="'data' is attached to machine"):
        await fleet.change("other", MachineChange(disks=DATA))
    with pytest.raises(ConflictError, match="detach it, or delete that"):
        await fleet.disks.remove("data")
    # Also for the control planes after this one.
    await fleet.close()
    fleet = await world.fleet()
    with pytest.raises(ConflictError):
        await fleet.change("other", MachineChange(disks=DATA))
    await fleet.stop("web")
    await fleet.change("web", MachineChange(disks=()))
    await fleet.change("other", MachineChange(disks=DATA))
    with pytest.raises(ConflictError):
        await fleet.change("web", MachineChange(disks=DATA))
    await fleet.delete("other", force=False)
    await fleet.disks.remove("data")
    assert fleet.disks.every() == []


async def test_of_many_who_want_it_one_has_it(fleet: Fleet) -> None:
    await fleet.disks.create("data", 16)
    answers = await asyncio.gather(
        *(fleet.create(spec(f"m{number}", disks=DATA)) for number in range(5)),
        return_exceptions=True,
    )
    [made] = [one for one in answers if isinstance(one, Machine)]
    assert [type(one) for one in answers if one is not made] == [ConflictError] * 4
    assert fleet.disks.get("data").machine_id == made.id
    assert len(fleet.machines()) == 1


async def test_disks_change_only_while_nothing_runs(fleet: Fleet) -> None:
    await holding(fleet)
    for act, status in ((None, "running"), (fleet.pause, "paused"), (fleet.sleep, "sleeping")):
        if act is not None:
            await act("web")
        with pytest.raises(InvalidStateError, match=f"is {status}: stop it first"):
            await fleet.change("web", MachineChange(disks=()))
        with pytest.raises(InvalidStateError, match=f"is {status}: stop that first"):
            await fleet.disks.grow("data", 32)
        # What stays as it is may be said.
        await fleet.change("web", MachineChange(disks=DATA, labels={"a": status}))
    await fleet.stop("web")
    with pytest.raises(ValidationError, match="only grows"):
        await fleet.disks.grow("data", 8)
    assert (await fleet.disks.grow("data", 32)).size == 32 << 20
    changed = await fleet.change("web", MachineChange(disks=()))
    assert changed.spec.disks == ()


async def test_what_is_not_there_is_said(world: World, fleet: Fleet) -> None:
    with pytest.raises(ValidationError, match="there is no disk 'data'"):
        await fleet.create(spec(disks=DATA))
    await fleet.create(spec())
    with pytest.raises(ValidationError, match="there is no disk 'data'"):
        await fleet.change("web", MachineChange(disks=DATA))
    assert fleet.get("web").spec.disks == ()
    for act in (fleet.disks.remove("data"), fleet.disks.grow("data", 16)):
        with pytest.raises(NotFoundError):
            await act
    assert world.driver.alive() == set()


async def test_a_disk_that_is_gone_keeps_its_machine_from_starting(
    world: World, fleet: Fleet
) -> None:
    await holding(fleet)
    await fleet.stop("web")
    await fleet.close()
    (world.home / "data" / "data" / "disk.json").unlink()
    fleet = await world.fleet()
    with pytest.raises(ValidationError, match="there is no disk 'data'"):
        await fleet.start("web")
    assert fleet.get("web").status is Status.STOPPED
    await fleet.change("web", MachineChange(disks=()))
    await fleet.start("web")


async def test_memory_and_data_disks_go_no_two_ways(fleet: Fleet) -> None:
    """A memory that is put back knows of another content of the disk than it has by then."""
    await holding(fleet)
    with pytest.raises(InvalidStateError, match="has data disks"):
        await fleet.snapshot("web", "one")
    await fleet.stop("web")
    await fleet.snapshot("web", "one")
    clone = await fleet.clone("one", "copy", MachineChange())
    assert clone.spec.disks == ()
    await fleet.change("web", MachineChange(disks=()))
    with_disk = await fleet.clone("one", "other", MachineChange(disks=DATA))
    assert with_disk.spec.disks == DATA
    await fleet.start("web")
    await fleet.snapshot("web", "memory")
    await fleet.delete("other", force=False)
    with pytest.raises(ValidationError, match="knows of no data disks"):
        await fleet.clone("memory", "another", MachineChange(disks=DATA))
    await fleet.stop("web")
    await fleet.change("web", MachineChange(disks=DATA))
    with pytest.raises(InvalidStateError, match="detach them"):
        await fleet.restore("web", "memory")


async def test_a_sleeping_machine_keeps_its_disks(fleet: Fleet) -> None:
    await holding(fleet)
    await run(fleet, "web", "sh", "-c", "echo kept > /d/file")
    await fleet.sleep("web")
    with pytest.raises(ConflictError):
        await fleet.create(spec("other", disks=DATA))
    await fleet.start("web")
    assert await content(fleet, "web") == b"kept\n"


async def test_usage_is_told_while_it_runs(fleet: Fleet) -> None:
    await holding(fleet)
    await run(fleet, "web", "sh", "-c", "echo kept > /d/file")
    own, data = await fleet.disks.usage("web")
    assert (own.disk, own.path, data.disk, data.path) == (None, "/", "data", "/d")
    assert data.used == len("kept\n")
    assert own.size is not None
    await fleet.stop("web")
    own, data = await fleet.disks.usage("web")
    assert (own.used, own.size, data.used, data.size) == (None, None, None, 16 << 20)
    with pytest.raises(NotFoundError):
        await fleet.disks.usage("none")
