"""What only the fake does: machines that outlive the control plane they were started by."""

from __future__ import annotations

from pathlib import Path

import msgspec

from hyperfleet.guest.agent import Agent
from hyperfleet.vmm.driver import Process
from hyperfleet.vmm.fake import FakeDriver
from support.bench import Bench

ARGUMENTS = "fake.survives=true fake.listens=80"


async def _listening(process: Process) -> set[int]:
    agent = await Agent.connect(*await process.channel(), timeout=10)
    try:
        return {listener.port for listener in await agent.listeners()}
    finally:
        await agent.close()


async def test_one_that_survives_is_adopted_by_the_next_driver_until_it_is_ended(tmp_path: Path):
    launch = Bench(FakeDriver(), tmp_path, tmp_path).launch(kernel_args=ARGUMENTS)
    launch = msgspec.structs.replace(launch, ports=(80,))
    first = await FakeDriver().start(launch)
    assert await _listening(first) == {80}
    # As its control plane's end would: without a word to the file that says it runs.
    first.guest.end()

    process = await FakeDriver().adopt(launch)
    assert process is not None
    assert await _listening(process) == {80}
    assert set(await process.forwards()) == {80}
    await process.kill()
    assert await FakeDriver().adopt(launch) is None
    await first.kill()


async def test_others_end_with_their_driver(tmp_path: Path):
    launch = Bench(FakeDriver(), tmp_path, tmp_path).launch()
    process = await FakeDriver().start(launch)
    assert await FakeDriver().adopt(launch) is None
    await process.kill()
