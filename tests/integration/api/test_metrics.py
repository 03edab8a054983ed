"""/metrics, and what the API counts of itself."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from hyperfleet.proxy.interface import Activity
from support.metrics import Exposition, broken_rules

from .conftest import Api, error

OPEN = "application/openmetrics-text; version=1.0.0; charset=utf-8"


async def scrape(api: Api) -> Exposition:
    answer = await api.client.get("/metrics")
    assert answer.status_code == 200
    return Exposition(answer.text)


async def test_no_key_is_asked_for_and_the_format_is_negotiated(api: Api) -> None:
    del api.client.headers["Authorization"]
    plain = await api.client.get("/metrics")
    assert plain.status_code == 200
    assert plain.headers["Content-Type"].startswith("text/plain; version=")
    assert broken_rules(Exposition(plain.text).families) == []
    other = await api.client.get("/metrics", headers={"Accept": OPEN})
    assert other.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert broken_rules(Exposition(other.text, open_metrics=True).families) == []
    head = await api.client.head("/metrics")
    assert (head.status_code, head.content) == (200, b"")


async def test_requests_are_counted_by_route_and_never_by_what_a_client_writes(api: Api) -> None:
    await api.machine()
    for ref in ("web", "nobody", "web"):
        await api.client.get(f"/machines/{ref}")
    for path in ("/one", "/two"):
        await api.client.get(path)
    await api.client.request("FOO", "/health")
    await api.client.head("/machines/web")
    api.fleet.fail_next = RuntimeError("a bug")
    await api.client.post("/machines/web/start")
    seen = await scrape(api)
    counted = {
        ("GET", "/machines/{id}", "200"): 3,
        ("GET", "/machines/{id}", "404"): 1,
        ("GET", "none", "404"): 2,
        ("POST", "/machines/{id}/start", "500"): 1,
        ("POST", "/machines", "201"): 1,
    }
    for (method, route, status), count in counted.items():
        labels = {"method": method, "route": route, "status": status}
        assert seen.value("hyperfleet_api_requests_total", **labels) == count, labels
    assert seen.value("hyperfleet_api_requests_total", method="other", status="405") == 1
    times = "hyperfleet_api_request_duration_seconds_count"
    assert seen.value(times, method="GET", route="/machines/{id}") == 4


async def test_two_scrapes_at_once_ask_once_and_one_that_goes_harms_nobody(api: Api) -> None:
    api.fleet.may_report.clear()
    metrics = api.app.state.parts.metrics
    one, two, three = (asyncio.create_task(metrics.scrape("")) for _ in range(3))
    await api.fleet.asked.wait()
    one.cancel()
    await asyncio.wait((one,))
    api.fleet.may_report.set()
    for text, _ in await asyncio.gather(two, three):
        assert Exposition(text.decode()).value("hyperfleet_proxy_up") == 0
    assert api.fleet.reports == 1
    await api.client.get("/metrics")
    assert api.fleet.reports == 2


async def test_activity_is_shown(api: Api) -> None:
    machine_id = await api.machine()
    url = f"/machines/{machine_id}/activity"
    nothing = {"connections": 0, "requests_in_flight": 0, "tunnels": 0, "last_activity_at": None}
    assert (await api.client.get(url)).json() == nothing
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    api.fleet.active = Activity(connections=3, requests_in_flight=2, tunnels=1, last_at=at)
    assert (await api.client.get("/machines/web/activity")).json() == {
        "connections": 3,
        "requests_in_flight": 2,
        "tunnels": 1,
        "last_activity_at": "2026-01-02T03:04:05Z",
    }
    api.fleet.active = None
    assert error(await api.client.get(url))[:2] == (503, "CAPACITY")


@pytest.mark.parametrize("ref", ["nobody", "000000000000"])
async def test_activity_of_nobody(api: Api, ref: str) -> None:
    assert error(await api.client.get(f"/machines/{ref}/activity"))[:2] == (404, "NOT_FOUND")
