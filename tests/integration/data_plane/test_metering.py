"""What a real data plane counts, from a request to the text that Prometheus reads."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from hyperfleet.lifecycle import Status
from hyperfleet.metrics.instruments import Instruments
from hyperfleet.metrics.scrape import Metrics
from hyperfleet.proxy.data_plane import DataPlane
from hyperfleet.proxy.interface import Activity
from hyperfleet.proxy.process import DataPlaneConfig
from support.data_plane import OK, PATIENCE, STOPPED, WEB, a_machine, opened, page
from support.metrics import Exposition, broken_rules


async def scrape(plane: DataPlane) -> Exposition:
    metrics = Metrics(
        Instruments(driver="fake", proxy_pid=lambda: plane.pid),
        machines=lambda: [a_machine()],
        ask=lambda machines: plane.report(machines=machines),
        per_machine=True,
    )
    text, _ = await metrics.scrape("")
    return Exposition(text.decode())


async def settled(plane: DataPlane, requests: int) -> Exposition:
    """A scrape after so many requests were counted: a worker counts after it has answered."""
    async with asyncio.timeout(PATIENCE):
        while True:
            seen = await scrape(plane)
            counted = seen.values("hyperfleet_machine_port_requests_total")
            if counted == [requests] and not any(
                seen.values("hyperfleet_machine_port_requests_in_flight")
            ):
                return seen


async def test_known_traffic_is_told_truly(config: DataPlaneConfig, upstream: str) -> None:
    async with opened(config, a_machine(upstream=upstream)) as plane:
        quiet = await scrape(plane)
        assert quiet.values("hyperfleet_machine_port_requests_total") == []
        assert await plane.activity(WEB) == Activity()
        for _ in range(3):
            assert await page(config) == OK
        await plane.publish(a_machine(upstream=upstream, status=Status.STOPPED))
        assert await page(config) == STOPPED
        seen = await settled(plane, 4)
        assert broken_rules(seen.families) == []
        labels = {"machine_id": WEB, "machine": f"m-{WEB}", "port": "80"}
        ok, failed = {"class": "2xx", **labels}, {"class": "5xx", **labels}
        assert seen.value("hyperfleet_machine_port_responses_total", **ok) == 3
        assert seen.value("hyperfleet_machine_port_responses_total", **failed) == 1
        code = {"code": "machine_not_running", **labels}
        assert seen.value("hyperfleet_machine_port_errors_total", **code) == 1
        assert seen.value("hyperfleet_machine_port_request_duration_seconds_count", **labels) == 3
        assert seen.value("hyperfleet_proxy_requests_total") == 4
        assert seen.value("hyperfleet_proxy_request_duration_seconds_count") == 3
        assert seen.value("hyperfleet_proxy_up") == 1
        assert seen.value("hyperfleet_proxy_process_resident_memory_bytes") > 0
        active = await plane.activity(WEB)
        assert active is not None
        assert active.last_at is not None
        assert timedelta(0) <= datetime.now(UTC) - active.last_at < timedelta(seconds=PATIENCE)
        assert (active.requests_in_flight, active.tunnels) == (0, 0)
        await plane.withdraw(WEB)
        assert (await scrape(plane)).values("hyperfleet_machine_port_requests_total") == []
        assert await plane.activity(WEB) == Activity()


async def test_a_data_plane_that_is_away_is_said_to_be(config: DataPlaneConfig) -> None:
    async with opened(config, a_machine()) as plane:
        await plane.close(keep_running=False)
        assert await plane.activity(WEB) is None
        assert (await scrape(plane)).value("hyperfleet_proxy_up") == 0
