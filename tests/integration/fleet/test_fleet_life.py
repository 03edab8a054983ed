"""Start, stop, delete, death: what a user of a fleet can rely on."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from pathlib import Path

import msgspec
import pytest

from hyperfleet.errors import (
    ConflictError,
    GuestError,
    InvalidStateError,
    NotFoundError,
    OperationTimeoutError,
    ValidationError,
)
from hyperfleet.fleet import Fleet
from hyperfleet.fleet.pulse import PulseLimits
from hyperfleet.lifecycle import Status
from hyperfleet.machine import Machine
from support.data_plane import until

from .world import World, console, get, run, spec


async def test_twenty_starts_make_one_machine(world: World, fleet: Fleet) -> None:
    made = await fleet.create(spec())
    machines = await asyncio.gather(*(fleet.start(made.id) for _ in range(20)))
    assert {(machine.status, machine.lifecycle) for machine in machines} == {(Status.RUNNING, 1)}
    assert world.routes.statuses() == [Status.PENDING, Status.STARTING, Status.RUNNING]
    assert (await fleet.start("web")).lifecycle == 1


async def test_starts_that_fail_fail_together(world: World, fleet: Fleet) -> None:
    await fleet.create(spec(faults="fake.boot=panic fake.delay=0.05"))
    results = await asyncio.gather(*(fleet.start("web") for _ in range(5)), return_exceptions=True)
    assert {type(result) for result in results} == {GuestError}
    assert world.routes.statuses().count(Status.STARTING) == 1


async def test_stop_and_start_again_keep_the_disk(fleet: Fleet) -> None:
    await fleet.create(spec())
    first = await fleet.start("web")
    await run(fleet, "web", "sh", "-c", "echo kept > /file")
    stopped = await fleet.stop("web")
    assert (stopped.status, stopped.pid, stopped.ports[0].upstream) == (Status.STOPPED, None, None)
    assert stopped.started_at == first.started_at
    assert (await fleet.stop("web")).status is Status.STOPPED
    assert (await fleet.start("web")).lifecycle == 2
    assert (await run(fleet, "web", "cat", "/file")).stdout == b"kept\n"


async def test_two_machines_share_no_writes(fleet: Fleet) -> None:
    for name in ("one", "two"):
        await fleet.create(spec(name))
        await fleet.start(name)
        await run(fleet, name, "sh", "-c", f"echo {name} > /file")
    for name in ("one", "two"):
        assert (await run(fleet, name, "cat", "/file")).stdout == f"{name}\n".encode()


async def test_clients_are_turned_away_before_the_guest_is_asked_to_stop(
    world: World, fleet: Fleet
) -> None:
    machine = await fleet.create(spec())
    await fleet.start("web")
    process = world.process(machine)
    stopping = asyncio.create_task(fleet.stop("web"))
    told = await world.routes.until(lambda one: one.status is Status.STOPPING)
    assert told.id == machine.id
    assert process.alive
    await stopping
    assert not process.alive


async def test_stop_ends_a_start(world: World, fleet: Fleet) -> None:
    machine = await fleet.create(spec(faults="fake.boot=never"))
    starting = asyncio.create_task(fleet.start("web"))
    await world.routes.until(lambda one: one.status is Status.STARTING)
    assert (await fleet.stop("web")).status is Status.STOPPED
    with pytest.raises(InvalidStateError, match="was stopped while it started"):
        await starting
    assert world.driver.process(machine.id) is None


async def test_a_start_while_it_stops_waits_and_starts(fleet: Fleet) -> None:
    await fleet.create(spec())
    await fleet.start("web")
    stopped, started = await asyncio.gather(fleet.stop("web"), fleet.start("web"))
    assert (stopped.status, started.status) == (Status.STOPPED, Status.RUNNING)
    assert started.lifecycle == 2


async def test_a_caller_that_goes_does_not_stop_the_start(world: World, fleet: Fleet) -> None:
    await fleet.create(spec(faults="fake.delay=0.05"))
    caller = asyncio.create_task(fleet.start("web"))
    await world.routes.until(lambda one: one.status is Status.STARTING)
    caller.cancel()
    assert (await fleet.wait("web", Status.RUNNING, 5)).lifecycle == 1


async def test_a_guest_that_hangs_is_stopped_all_the_same(world: World, fleet: Fleet) -> None:
    machine = await fleet.create(spec())
    await fleet.start("web")
    world.process(machine).guest.freeze()
    # Sooner than a call to the agent is given up.
    async with asyncio.timeout(8):
        assert (await fleet.stop("web")).status is Status.STOPPED
    assert world.driver.processes() == []


async def test_what_a_machine_logs_later_is_not_of_the_request_that_started_it(
    world: World, fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    machine = await fleet.create(spec())
    noted = contextvars.ContextVar("noted", default="nobody")
    told: list[str] = []

    class Ear(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            told.append(noted.get())
            return True

    caplog.set_level(logging.INFO)
    caplog.handler.addFilter(Ear())
    noted.set("the request")
    await fleet.start("web")
    told.clear()
    world.process(machine).guest.hang_up()
    with pytest.raises(GuestError, match="was lost"):
        await run(fleet, "web", "true")
    # By the channel that was made anew.
    await run(fleet, "web", "true")
    assert "channel was lost" in caplog.text
    assert set(told) == {"nobody"}


async def test_what_never_ran_or_failed_is_not_stopped(fleet: Fleet) -> None:
    await fleet.create(spec(faults="fake.boot=panic"))
    with pytest.raises(InvalidStateError, match="never started"):
        await fleet.stop("web")
    with pytest.raises(GuestError):
        await fleet.start("web")
    with pytest.raises(InvalidStateError, match="nothing of it runs"):
        await fleet.stop("web")


@pytest.mark.parametrize(
    ("faults", "words"),
    [
        ("fake.boot=panic", ["exit status 0", "Kernel panic - not syncing: VFS"]),
        ("fake.boot=no-disk", ["powered off", "hyperfleet-agent: cannot mount /dev/vda"]),
        ("fake.boot=refused", ["would not start", "asked not to"]),
        ("fake.dies_after=0.05 fake.delay=9", ["killed by signal 9"]),
        ("fake.channel=garbage", ["guest"]),
    ],
)
async def test_a_boot_that_fails_says_why(fleet: Fleet, faults: str, words: list[str]) -> None:
    await fleet.create(spec(faults=faults))
    with pytest.raises(GuestError) as raised:
        await fleet.start("web")
    machine = fleet.get("web")
    assert machine.status is Status.FAILED
    assert machine.error_message == raised.value.message
    for word in words:
        assert word in raised.value.message


async def test_a_boot_has_a_deadline(world: World) -> None:
    fleet = await world.fleet(boot_deadline=0.1)
    machine = await fleet.create(spec(faults="fake.boot=never"))
    with pytest.raises(OperationTimeoutError, match=r"within 0\.1 s: its agent has not answered"):
        await fleet.start("web")
    assert fleet.get("web").status is Status.FAILED
    assert world.driver.process(machine.id) is None


QUICK = PulseLimits(every=0.01, idle=0.05)


async def test_a_boot_that_hangs_is_started_anew(world: World) -> None:
    fleet = await world.fleet(pulse=QUICK)
    machine = await fleet.create(spec(faults="fake.boot=hangs-once"))
    assert (await fleet.start("web")).status is Status.RUNNING
    await run(fleet, "web", "true")
    # The disk and the lifecycle are those of one start.
    assert fleet.get("web").lifecycle == machine.lifecycle + 1


async def test_a_boot_that_hangs_again_says_so(world: World) -> None:
    fleet = await world.fleet(pulse=QUICK, boot_deadline=0.5)
    machine = await fleet.create(spec(faults="fake.boot=hangs"))
    with pytest.raises(
        OperationTimeoutError,
        match=r"used 0\.0 s of CPU; it had been started anew, since it did nothing for 0\.05 s",
    ):
        await fleet.start("web")
    assert world.driver.process(machine.id) is None


async def test_a_boot_that_hangs_can_be_stopped(world: World) -> None:
    fleet = await world.fleet(pulse=QUICK)
    machine = await fleet.create(spec(faults="fake.boot=hangs"))
    starting = asyncio.create_task(fleet.start("web"))
    await fleet.wait("web", Status.STARTING, 5)
    await fleet.stop("web")
    with pytest.raises(InvalidStateError, match="was stopped while it started"):
        await starting
    assert world.driver.process(machine.id) is None


async def test_an_agent_that_only_greets_is_not_up(world: World) -> None:
    fleet = await world.fleet(boot_deadline=0.1)
    await fleet.create(spec(faults="fake.channel=mute"))
    with pytest.raises(OperationTimeoutError, match="its agent has not taken its name"):
        await fleet.start("web")
    assert fleet.get("web").status is Status.FAILED


async def test_the_next_start_forgets_the_failure(world: World, fleet: Fleet) -> None:
    machine = await fleet.create(spec())
    await fleet.start("web")
    world.process(machine).end(world.died)
    failed = await fleet.wait("web", Status.FAILED, 5)
    assert failed.error_message is not None
    assert "killed by signal 9" in failed.error_message
    assert (await fleet.start("web")).error_message is None


async def test_a_death_reaches_the_routes(world: World, fleet: Fleet) -> None:
    machine = await fleet.create(spec())
    await fleet.start("web")
    world.process(machine).end(world.died)
    told = await world.routes.until(lambda one: one.status is Status.FAILED)
    assert told.ports[0].upstream is None


async def test_a_guest_that_powers_off_is_stopped(fleet: Fleet) -> None:
    await fleet.create(spec())
    await fleet.start("web")
    with pytest.raises(GuestError):
        await run(fleet, "web", "sh", "-c", "poweroff; sleep 60", timeout=60)
    assert (await fleet.wait("web", Status.STOPPED, 5)).error_message is None


async def test_delete_needs_rest_or_force(world: World, fleet: Fleet) -> None:
    machine = await fleet.create(spec())
    await fleet.start("web")
    with pytest.raises(InvalidStateError, match="force=true"):
        await fleet.delete("web", force=False)
    await fleet.delete("web", force=True)
    with pytest.raises(NotFoundError):
        fleet.get(machine.id)
    assert world.routes.told[-1] == machine.id
    assert await world.store.all() == []
    assert list((world.home / "machines").iterdir()) == []
    # The name is free again.
    await fleet.create(spec())


async def test_delete_while_it_starts(world: World, fleet: Fleet) -> None:
    await fleet.create(spec(faults="fake.delay=0.1"))
    starting = asyncio.create_task(fleet.start("web"))
    await world.routes.until(lambda one: one.status is Status.STARTING)
    with pytest.raises(InvalidStateError, match="is starting"):
        await fleet.delete("web", force=False)
    await fleet.delete("web", force=True)
    assert (await starting).status is Status.RUNNING
    assert fleet.machines() == []


async def test_of_twenty_deletes_one_does_it(fleet: Fleet) -> None:
    await fleet.create(spec())
    results = await asyncio.gather(
        *(fleet.delete("web", force=False) for _ in range(20)), return_exceptions=True
    )
    assert [result for result in results if not isinstance(result, NotFoundError)] == [None]


async def test_a_wait_ends_with_the_machine(fleet: Fleet) -> None:
    await fleet.create(spec())
    with pytest.raises(OperationTimeoutError, match=r"is pending, and was not running"):
        await fleet.wait("web", Status.RUNNING, 0.01)
    waiting = asyncio.create_task(fleet.wait("web", Status.RUNNING, 5))
    await asyncio.sleep(0)
    await fleet.delete("web", force=False)
    with pytest.raises(NotFoundError):
        await waiting


async def test_names_and_ids_are_never_the_same(fleet: Fleet) -> None:
    machine = await fleet.create(spec())
    for taken in ("web", machine.id):
        with pytest.raises(ConflictError, match="name: "):
            await fleet.create(spec(taken))
    results = await asyncio.gather(
        fleet.create(spec("same")), fleet.create(spec("same")), return_exceptions=True
    )
    assert sorted(type(result).__name__ for result in results) == ["ConflictError", "Machine"]


@pytest.mark.parametrize(
    ("field", "value"),
    [("vcpu_count", 100000), ("mem_size_mib", 3), ("mem_size_mib", 10**9)],
)
async def test_what_the_host_can_never_give_is_refused(
    fleet: Fleet, field: str, value: int
) -> None:
    with pytest.raises(ValidationError, match=f"{field}: must be from "):
        await fleet.create(msgspec.structs.replace(spec(), **{field: value}))
    assert fleet.machines() == []


async def test_a_kernel_that_went_away_leaves_the_machine_as_it_is(fleet: Fleet) -> None:
    with pytest.raises(ValidationError, match="kernel_image_path"):
        await fleet.create(spec(kernel_image_path="missing"))


async def test_lists_are_filtered_and_cut(fleet: Fleet) -> None:
    for number in range(5):
        labels = {"app": "web" if number % 2 else "db", f"n{number}": ""}
        await fleet.create(spec(f"m{number}", labels=labels))
    await fleet.start("m1")

    def names(machines: list[Machine]) -> list[str]:
        return [machine.spec.name for machine in machines]

    found, total = fleet.list(status=None, labels=[], limit=2, offset=1)
    assert (names(found), total) == (["m1", "m2"], 5)
    found, total = fleet.list(status=None, labels=[("app", "web")], limit=9, offset=0)
    assert (names(found), total) == (["m1", "m3"], 2)
    found, _ = fleet.list(status=None, labels=[("app", "db"), ("n4", None)], limit=9, offset=0)
    assert names(found) == ["m4"]
    found, _ = fleet.list(status=Status.RUNNING, labels=[], limit=9, offset=0)
    assert names(found) == ["m1"]


async def test_exec_has_the_machines_environment_under_its_own(fleet: Fleet) -> None:
    await fleet.create(spec(env={"A": "machine", "B": "machine"}))
    with pytest.raises(InvalidStateError, match="is pending, not running"):
        await run(fleet, "web", "true")
    await fleet.start("web")
    seen = await run(fleet, "web", "sh", "-c", "echo $A $B", env={"B": "request"})
    assert seen.stdout == b"machine request\n"


async def test_the_console_is_kept(world: World, fleet: Fleet) -> None:
    machine = await fleet.create(spec())
    assert await console(fleet, "web") == b""
    await fleet.start("web")
    assert await console(fleet, machine.id, 1) == b"hyperfleet-agent: ready\n"


async def test_a_record_that_can_not_be_written_stops_the_start(world: World, fleet: Fleet) -> None:
    machine = await fleet.create(spec())
    world.store.refuses = Status.STARTING
    with pytest.raises(OSError, match="disk full"):
        await fleet.start("web")
    assert fleet.get("web").status is Status.PENDING
    assert world.driver.process(machine.id) is None
    world.store.refuses = Status.RUNNING
    with pytest.raises(OSError, match="disk full"):
        await fleet.start("web")
    assert fleet.get("web").status is Status.FAILED
    assert world.driver.process(machine.id) is None


async def test_a_page_is_served(fleet: Fleet) -> None:
    await fleet.create(spec())
    machine = await fleet.start("web")
    assert await get(machine.ports[0].upstream) == b""
    await run(fleet, "web", "sh", "-c", "echo page > /www/index.html; httpd -h /www")
    assert await get(machine.ports[0].upstream) == b"page\n"


async def test_nothing_is_left_in_the_home(world: World, tmp_path: Path) -> None:
    fleet = await world.fleet()
    for number in range(3):
        await fleet.create(spec(f"m{number}"))
        await fleet.start(f"m{number}")
    for number in range(3):
        await fleet.delete(f"m{number}", force=True)
    assert [path.name for path in world.home.rglob("*")] == ["machines"]


async def test_a_console_is_bounded_while_its_machine_runs(world: World, fleet: Fleet) -> None:
    machine = await fleet.create(spec())
    machine = await fleet.start(machine.id)
    log = world.driver.console(world.launch(machine))
    with log.open("ab") as guest:
        guest.write(b"x" * (17 << 20) + b"\nlast\n")
    await until(lambda: log.stat().st_size == 1 << 20)
    assert (await console(fleet, machine.id, 1)) == b"last\n"
