"""What every driver keeps: the same tests for the fake and for QEMU.

QEMU's boot real guests from what `hyperfleet setup` makes: HYPERFLEET_TEST_HOME names the home that
holds it, the checkout's own unless told.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from hyperfleet.errors import GuestError, HyperfleetError, ValidationError
from hyperfleet.guest.agent import Agent
from hyperfleet.guest.values import ExecRequest, ExecResult, GuestNetwork
from hyperfleet.machine import new_machine_id
from hyperfleet.network import user
from hyperfleet.network.user import UserNetwork
from hyperfleet.vmm.driver import Driver, Exit, LaunchSpec, Process
from hyperfleet.vmm.fake import FakeDriver
from hyperfleet.vmm.qemu import QemuDriver

BOOT_S = 60.0
CHECKOUT = Path(__file__).parents[2]
PANIC = {"fake": "fake.boot=panic", "qemu": "console=ttyS0 panic=-1 reboot=t rdinit=/nothing"}


class Bench:
    """A driver, what its machines boot from, and those that were started."""

    def __init__(self, driver: Driver, home: Path, files: Path) -> None:
        self.driver = driver
        self._home = home
        self._files = files
        self.launches: list[LaunchSpec] = []

    def launch(self, **changes: object) -> LaunchSpec:
        machine_id = new_machine_id()
        launch = LaunchSpec(
            id=machine_id,
            name="web",
            # Deeper than the path of a Unix socket may be.
            directory=self._home / ("deep" * 30) / machine_id,
            vcpu_count=1,
            mem_size_mib=128,
            kernel=self._files / "vmlinux",
            initramfs=self._files / "initramfs.cpio",
            kernel_args=None,
            base_disk=self._files / "minimal-rootfs.ext4",
            guest_mac=user.guest_mac(machine_id),
            ports=(80,),
        )
        launch = msgspec.structs.replace(launch, **changes)
        self.launches.append(launch)
        return launch

    async def start(self, launch: LaunchSpec) -> Guest:
        return await Guest.of(await self.driver.start(launch))

    async def close(self) -> None:
        for launch in self.launches:
            await self.driver.remove(launch)


class Guest:
    """A machine that has come up, with its agent."""

    def __init__(self, process: Process, agent: Agent) -> None:
        self.process = process
        self.agent = agent

    @classmethod
    async def of(cls, process: Process) -> Guest:
        return cls(process, await Agent.connect(*await process.channel(), timeout=BOOT_S))

    async def run(self, *argv: str) -> ExecResult:
        return await self.agent.exec(ExecRequest(argv=argv))

    async def serve(self, page: str) -> None:
        network = GuestNetwork(address=user.GUEST_ADDRESS, gateway=user.GATEWAY, dns=user.DNS)
        await self.agent.configure("web", network)
        made = await self.run("sh", "-c", f"echo {page} > /index.html; httpd -p 80 -h /")
        assert made.exit_code == 0

    async def power_off(self) -> Exit:
        await self.agent.shutdown(0.2)
        ended = await self.process.wait()
        await self.let_go()
        return ended

    async def let_go(self) -> None:
        await self.agent.close()
        self.process.release()


@pytest.fixture(params=["fake", pytest.param("qemu", marks=pytest.mark.vm)])
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    files = Path(os.environ.get("HYPERFLEET_TEST_HOME", CHECKOUT / ".hyperfleet"))
    driver: Driver = FakeDriver()
    if request.param == "qemu":
        _need_vms(files)
        driver = QemuDriver(network=UserNetwork(), kvm=False)
    bench = Bench(driver, tmp_path, files)
    yield bench
    await bench.close()


def _need_vms(files: Path) -> None:
    missing = [name for name in ("qemu-system-x86_64", "qemu-img") if shutil.which(name) is None]
    needed = ("vmlinux", "initramfs.cpio", "minimal-rootfs.ext4")
    missing += [name for name in needed if not (files / name).is_file()]
    if missing:
        reason = f"missing: {', '.join(missing)} (make setup)"
        if os.environ.get("CI", "").lower() in ("1", "true"):
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)


async def page(upstream: str) -> bytes:
    host, port = upstream.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /index.html HTTP/1.0\r\n\r\n")
    try:
        return (await reader.read()).partition(b"\r\n\r\n")[2]
    finally:
        writer.close()


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


async def test_another_homes_machine_of_that_id_is_left_alone(bench: Bench) -> None:
    if bench.driver.name == "fake":
        pytest.skip("fake machines live in one process, their ids are all there is")
    launch = bench.launch()
    guest = await bench.start(launch)
    copied = msgspec.structs.replace(launch, directory=launch.directory.with_name("copy"))
    shutil.copytree(launch.directory, copied.directory, ignore=shutil.ignore_patterns("*.sock"))
    assert await bench.driver.adopt(copied) is None
    await bench.driver.remove(copied)
    await guest.agent.ping(5)
    await guest.let_go()


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


async def test_a_base_that_was_written_to_is_refused(bench: Bench, tmp_path: Path) -> None:
    if bench.driver.name == "fake":
        pytest.skip("fake machines have no base")
    base = tmp_path / "base.ext4"
    shutil.copy(bench.launch().base_disk, base)
    launch = bench.launch(base_disk=base)
    guest = await bench.start(launch)
    await guest.run("sh", "-c", "echo kept > /file")
    await guest.power_off()
    # Built anew under its name: the machine stays on the one it began with.
    base.rename(tmp_path / "old.ext4")
    shutil.copy(launch.base_disk.with_name("old.ext4"), base)
    guest = await bench.start(launch)
    assert (await guest.run("cat", "/file")).stdout == b"kept\n"
    await guest.power_off()
    with (tmp_path / "old.ext4").open("r+b") as old:
        old.write(b"changed")
    with pytest.raises(ValidationError, match=r"rootfs_path: .* was written to"):
        await bench.driver.start(launch)


async def test_what_is_missing_is_named(bench: Bench, tmp_path: Path) -> None:
    if bench.driver.name == "fake":
        pytest.skip("fake machines boot from nothing")
    launch = bench.launch(kernel=tmp_path / "nothing")
    with pytest.raises(HyperfleetError, match="kernel_image_path: there is no file"):
        await bench.driver.start(launch)
