"""What every driver keeps: the same tests for the fake and for QEMU."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from hyperfleet.errors import GuestError, OperationTimeoutError, ValidationError
from hyperfleet.fleet import console
from hyperfleet.machine import CommandPhase, CommandState, How, Restart
from hyperfleet.vmm.driver import DataDisk, Exit, LaunchSpec
from support.bench import BOOT_S, BOOTS, DRIVERS, Bench, Guest, page

PANIC = {"fake": "fake.boot=panic", "qemu": "console=ttyS0 panic=-1 reboot=t rdinit=/nothing"}


@pytest.mark.parametrize("bench", [*DRIVERS, BOOTS], indirect=True)
async def test_a_machine_lives_from_start_to_power_off(bench: Bench) -> None:
    launch = bench.launch()
    guest = await bench.start(launch)
    ways = await guest.process.forwards()
    assert list(ways) == [80]
    assert await guest.process.forward(80) == ways[80]
    await guest.serve("page")
    assert await page(ways[80]) == b"page\n"
    assert bench.driver.console(launch).is_file()

    more = await guest.process.forward(8080)
    assert more != ways[80]
    assert await guest.process.forwards() == {80: ways[80], 8080: more}
    await guest.sh("httpd -p 8080 -h /")
    assert await page(more) == b"page\n"
    await guest.process.unforward(8080)
    await guest.process.unforward(8080)
    assert await guest.process.forwards() == ways
    ended = await guest.power_off()
    assert ended == Exit(code=0, powered_off=True)
    with pytest.raises(GuestError, match="has ended"):
        await guest.process.channel()
    with pytest.raises(GuestError):
        await guest.process.forward(81)
    await guest.process.kill()


async def test_a_channel_may_be_opened_again(bench: Bench) -> None:
    guest = await bench.start(bench.launch())
    boot = guest.agent.boot_id
    await guest.agent.close()
    again = await Guest.of(guest.process)
    assert again.agent.boot_id == boot
    assert (await again.run("echo", "again")).stdout == b"again\n"
    await again.let_go()


async def test_servers_that_come_and_go_are_news_and_connections_are_none(bench: Bench) -> None:
    guest = await bench.start(bench.launch())
    await guest.configure("web")
    seen = (await guest.agent.watch(0)).number
    async with asyncio.timeout(BOOT_S):
        coming = asyncio.create_task(guest.agent.watch(seen))
        await guest.sh("echo page > /index.html; httpd -p 80 -h /")
        seen = (await coming).number
        assert [one.port for one in await guest.agent.listeners()] == [80]
        way = await guest.process.forward(80)
        assert [await page(way) for _ in range(5)] == [b"page\n"] * 5
        assert (await guest.agent.watch(0)).number == seen
        going = asyncio.create_task(guest.agent.watch(seen))
        await guest.sh("killall httpd")
        assert (await going).number != seen
        assert await guest.agent.listeners() == []
    await guest.let_go()


async def test_what_happened_while_no_host_was_there_is_news_to_the_next(bench: Bench) -> None:
    guest = await bench.start(bench.launch())
    await guest.configure("web")
    seen = (await guest.agent.watch(0)).number
    watching = asyncio.create_task(guest.agent.watch(seen))
    # It is there before the host goes, and stays.
    await guest.sh("httpd -p 80 -h /")
    await guest.agent.close()
    await asyncio.gather(watching, return_exceptions=True)
    again = await Guest.of(guest.process)
    assert (await again.agent.watch(seen)).number == seen + 1
    await again.let_go()


async def test_a_command_writes_to_the_console_and_its_end_is_news(bench: Bench) -> None:
    launch = bench.launch()
    guest = await bench.start(launch)
    script = ("sh", "-c", "echo $WORD; pwd; exit 3")
    await guest.agent.supervise(script, {"WORD": "a-word"}, "/usr", Restart.NEVER)
    async with asyncio.timeout(BOOT_S):
        news = await guest.agent.watch(0)
        while news.command is None or news.command.state is not CommandPhase.EXITED:
            news = await guest.agent.watch(news.number)
        assert news.command == CommandState(state=CommandPhase.EXITED, exit_code=3)
        await _written(bench, launch, b"a-word/usr")
    await guest.let_go()


async def _written(bench: Bench, launch: LaunchSpec, words: bytes) -> None:
    """Returns when that is on the console, between whatever ends of lines."""
    so_far = b""
    path = bench.driver.console(launch)
    async for piece in console.follow(path, None, gone=lambda: False):
        so_far += piece
        if words in so_far.replace(b"\r", b"").replace(b"\n", b""):
            return


async def test_a_disk_is_kept_and_not_shared(bench: Bench) -> None:
    one, two = bench.launch(), bench.launch()
    first, second = await asyncio.gather(bench.start(one), bench.start(two))
    for name, guest in (("one", first), ("two", second)):
        await guest.run("sh", "-c", f"echo {name} > /file")
    for name, guest in (("one", first), ("two", second)):
        assert (await guest.run("cat", "/file")).stdout == f"{name}\n".encode()
        await guest.power_off()
    await bench.driver.sweep(one)
    again = await bench.start(one)
    assert (await again.run("cat", "/file")).stdout == b"one\n"
    await again.let_go()


async def test_a_killed_machine_is_gone_for_all_who_wait(bench: Bench) -> None:
    launch = bench.launch()
    guest = await bench.start(launch)
    waiting = [asyncio.create_task(guest.process.wait()) for _ in range(3)]
    await guest.process.kill()
    assert {(end.signal, end.powered_off) for end in await asyncio.gather(*waiting)} == {(9, False)}
    await guest.agent.closed()
    await guest.let_go()
    assert await bench.driver.adopt(launch) is None


async def test_a_machine_is_adopted(bench: Bench) -> None:
    launch = bench.launch()
    first = await bench.start(launch)
    await first.serve("page")
    before = await first.process.forwards()
    await first.let_go()

    process = await bench.driver.adopt(launch)
    assert process is not None
    assert process.pid == first.process.pid
    assert await process.forwards() == before
    assert await page(before[80]) == b"page\n"
    second = await Guest.of(process)
    assert second.agent.boot_id == first.agent.boot_id
    assert (await second.power_off()).powered_off


async def test_a_machine_is_found_without_its_pid_file(bench: Bench) -> None:
    launch = bench.launch()
    guest = await bench.start(launch)
    await guest.let_go()
    for path in launch.directory.glob("*.pid"):
        path.unlink()
    process = await bench.driver.adopt(launch)
    assert process is not None
    assert process.pid == guest.process.pid
    process.release()


async def test_a_process_stands_still_and_goes_on(bench: Bench) -> None:
    guest = await bench.start(bench.launch())
    for _ in range(2):
        await guest.process.pause()
    before = guest.process.cpu_time()
    with pytest.raises(OperationTimeoutError):
        await guest.agent.ping(0.5)
    if before is not None:
        after = guest.process.cpu_time()
        assert after is not None
        # QEMU's own threads answer the monitor.
        assert after.used - before.used < 0.1
    for _ in range(2):
        await guest.process.resume()
    await guest.agent.ping(BOOT_S)
    await guest.process.pause()
    await guest.process.kill()
    for act in (guest.process.pause, guest.process.resume):
        with pytest.raises(GuestError):
            await act()


async def test_what_is_in_memory_lives_through_sleep_once(bench: Bench) -> None:
    launch = bench.launch()
    guest = await bench.start(launch)
    await guest.serve("page")
    await guest.agent.sync()
    boot_id = guest.agent.boot_id
    assert not bench.driver.has_memory(launch)
    await guest.process.save()
    assert bench.driver.has_memory(launch)
    await guest.process.kill()
    await guest.agent.close()
    assert await bench.driver.adopt(launch) is None
    await bench.driver.sweep(launch)
    assert bench.driver.has_memory(launch)

    process = await bench.driver.start(launch)
    assert process.beginning.how is How.MEMORY
    assert not bench.driver.has_memory(launch)
    woken = await Guest.of(process)
    # It is the same boot, and its server has never ended.
    assert woken.agent.boot_id == boot_id
    assert await page((await process.forwards())[80]) == b"page\n"
    await process.kill()
    await woken.agent.close()
    assert (await bench.driver.start(launch)).beginning.how is not How.MEMORY


async def test_a_guest_that_slept_has_news_as_before_and_its_command_goes_on(bench: Bench) -> None:
    launch = bench.launch()
    guest = await bench.start(launch)
    await guest.agent.supervise(("sleep", "100000"), {}, None, Restart.NEVER)
    slept = await guest.agent.watch(0)
    await guest.process.save()
    await guest.process.kill()
    await guest.let_go()
    process = await bench.driver.start(launch)
    assert process.beginning.how is How.MEMORY
    woken = await Guest.of(process)
    await woken.configure("web")
    # It is said again by a host that does not know; it changes nothing.
    await woken.agent.supervise(("false",), {}, None, Restart.NEVER)
    news = await woken.agent.watch(0)
    assert news.command == slept.command
    coming = asyncio.create_task(woken.agent.watch(news.number))
    await woken.sh("httpd -p 80 -h /")
    async with asyncio.timeout(BOOT_S):
        assert (await coming).command == slept.command
    await woken.let_go()


async def test_what_is_saved_can_be_forgotten(bench: Bench) -> None:
    launch = bench.launch()
    for forget in (lambda: bench.driver.forget_memory(launch), None):
        guest = await bench.start(launch)
        await guest.process.save()
        await guest.process.kill()
        await guest.agent.close()
        if forget is not None:
            await forget()
            assert not bench.driver.has_memory(launch)
            await forget()
        process = await bench.driver.start(launch, anew=True)
        assert process.beginning.how is not How.MEMORY
        assert not bench.driver.has_memory(launch)
        await Guest.new(process)


async def test_a_snapshot_is_of_one_moment_and_its_machine_goes_on(
    bench: Bench, tmp_path: Path
) -> None:
    launch = bench.launch()
    guest = await bench.start(launch)
    await guest.serve("before")
    ways = await guest.process.forwards()
    snapshots = [tmp_path / "one", tmp_path / "two"]
    # The second of one that stands still, which it does after it as well.
    for folder, paused in zip(snapshots, (False, True), strict=True):
        folder.mkdir()
        if paused:
            await guest.process.pause()
        await guest.process.snapshot(folder)
        if paused:
            with pytest.raises(OperationTimeoutError):
                await guest.agent.ping(0.5)
            await guest.process.resume()
        await guest.agent.ping(BOOT_S)
        await guest.sh("echo after > /index.html")
        assert await page(ways[80]) == b"after\n"
    # What was saved once can be saved again.
    await guest.process.pause()
    (tmp_path / "three").mkdir()
    await guest.process.snapshot(tmp_path / "three")
    await guest.process.save()
    await guest.process.kill()
    await guest.agent.close()
    for folder, content in zip(snapshots, (b"before\n", b"after\n"), strict=True):
        other = bench.launch()
        other.directory.mkdir(parents=True)
        await bench.driver.check_memory(folder, other)
        await bench.driver.copy(folder, other.directory)
        assert bench.driver.has_memory(other)
        process = await bench.driver.start(other)
        assert process.beginning.how is How.MEMORY
        clone = await Guest.of(process)
        assert clone.agent.boot_id == guest.agent.boot_id
        assert await page((await process.forwards())[80]) == content
        await clone.let_go()
        assert not bench.driver.has_memory(other)


async def test_a_disk_alone_is_copied_from_one_that_is_off(bench: Bench, tmp_path: Path) -> None:
    launch = bench.launch()
    (tmp_path / "none").mkdir()
    with pytest.raises(ValidationError, match="no disk"):
        await bench.driver.copy(launch.directory, tmp_path / "none")
    guest = await bench.start(launch)
    await guest.run("sh", "-c", "echo kept > /file")
    await guest.power_off()
    await bench.driver.sweep(launch)
    (tmp_path / "disk").mkdir()
    await bench.driver.copy(launch.directory, tmp_path / "disk")
    await bench.driver.remove(launch)
    other = bench.launch()
    other.directory.mkdir(parents=True)
    await bench.driver.copy(tmp_path / "disk", other.directory)
    assert not bench.driver.has_memory(other)
    clone = await bench.start(other)
    assert clone.process.beginning.how is not How.MEMORY
    assert (await clone.run("cat", "/file")).stdout == b"kept\n"
    await clone.let_go()


async def test_data_disks_outlive_machines_and_their_disks(bench: Bench, tmp_path: Path) -> None:
    disks = []
    for number in range(4):
        file = tmp_path / f"disk{number}"
        await bench.driver.make_disk(file, 32)
        path = f"/srv/data {number}" if number else "/data"
        disks.append(DataDisk(serial=f"abcdefghij{number}0", file=file, mount_path=path))
    launch = bench.launch(disks=tuple(disks))
    guest = await bench.start(launch)
    for number, disk in enumerate(disks):
        await guest.run("sh", "-c", f"echo {number} > '{disk.mount_path}/file'")
    await guest.power_off()
    await bench.driver.remove(launch)
    # Another machine, which has two of them elsewhere.
    moved = [msgspec.structs.replace(disk, mount_path=f"/mnt{disk.serial}") for disk in disks[:2]]
    other = await bench.start(bench.launch(disks=tuple(reversed(moved))))
    for number, disk in enumerate(moved):
        found = await other.run("cat", f"{disk.mount_path}/file")
        assert found.stdout == f"{number}\n".encode()
    await other.let_go()


async def test_sweep_and_remove_leave_nothing(bench: Bench) -> None:
    launch = bench.launch()
    guest = await bench.start(launch)
    await guest.let_go()
    for _ in range(2):
        await bench.driver.sweep(launch)
    assert await bench.driver.adopt(launch) is None
    left = {path.name for path in launch.directory.iterdir()}
    assert not [name for name in left if name.endswith((".sock", ".pid"))]
    assert "console.log" in left
    for _ in range(2):
        await bench.driver.remove(launch)
    assert not launch.directory.exists()


async def test_a_panic_is_an_end_but_no_power_off(bench: Bench) -> None:
    launch = bench.launch(kernel_args=PANIC[bench.driver.name])
    process = await bench.driver.start(launch)
    async with asyncio.timeout(BOOT_S):
        ended = await process.wait()
    assert (ended.code, ended.powered_off) == (0, False)
    assert "Kernel panic" in bench.driver.console(launch).read_text(errors="replace")


async def test_a_process_that_would_not_start_says_why(bench: Bench, tmp_path: Path) -> None:
    if bench.driver.name == "fake":
        launch = bench.launch(kernel_args="fake.boot=refused")
        words = "asked not to"
    else:
        kernel = tmp_path / "no-kernel"
        kernel.write_bytes(b"not a kernel" * 1000)
        launch = bench.launch(kernel=kernel)
        words = r"exit status 1.*(kernel|PVH)"
    with pytest.raises(GuestError, match=words):
        await bench.driver.start(launch)
    assert await bench.driver.adopt(launch) is None
