"""What the data plane reports becomes families that keep Prometheus' rules."""

from __future__ import annotations

import time

import msgspec
import pytest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from hyperfleet.lifecycle import Status
from hyperfleet.machine import How
from hyperfleet.metrics import families
from hyperfleet.metrics.instruments import Instruments
from hyperfleet.metrics.scrape import Metrics
from hyperfleet.proxy.interface import Report
from hyperfleet.wire import control
from support.data_plane import WEB, a_machine
from support.metrics import Exposition, broken_rules

DURATION = control.Histogram(counts=(2, 1, 1), sum_us=3_500_000)
FIRST_BYTE = control.Histogram(counts=(4, 0, 0), sum_us=2_000)
PORT = control.PortMeters(
    port=80,
    requests=9,
    responses=(1, 4, 0, 0, 2),
    errors=(("upstream_timeout", 2),),
    bytes_in=100,
    bytes_out=2000,
    in_flight=3,
    tunnels=1,
    duration=DURATION,
    first_byte=FIRST_BYTE,
)
COUNTERS = control.Counters(
    connections=1,
    tunnels=2,
    accepted=3,
    requests=4,
    responses=(5, 6, 7, 8, 9),
    errors=(("not_found", 10),),
    bytes_in=11,
    bytes_out=12,
    upstream_connects=13,
    upstream_reuses=14,
    in_flight=15,
    bounds={"client_connections": 16},
    bounds_us=(1_000, 2_500_000),
    duration=DURATION,
    first_byte=FIRST_BYTE,
)


def report(*ids: str) -> Report:
    machines = tuple(
        control.MachineMeters(id=one, connections=2, in_flight=3, idle_ms=60_000, ports=(PORT,))
        for one in ids
    )
    return Report(counters=COUNTERS, machines=machines)


async def scraped(found: Report | None, accept: str = "", *, per_machine: bool = True) -> str:
    async def ask(machines: bool) -> Report | None:
        assert machines == per_machine
        return found

    metrics = Metrics(
        Instruments(driver="fake", proxy_pid=lambda: None),
        machines=lambda: [a_machine(), a_machine("b" * 12, status=Status.STOPPED)],
        ask=ask,
        per_machine=per_machine,
    )
    return (await metrics.scrape(accept))[0].decode()


async def test_every_family_keeps_the_rules() -> None:
    text = await scraped(report(WEB))
    seen = Exposition(text)
    assert broken_rules(seen.families) == []
    assert len(seen.families) > 30
    accept = "application/openmetrics-text; version=1.0.0"
    # This parser is strict: suffixes, order, buckets that never fall.
    strict = Exposition(await scraped(report(WEB), accept), open_metrics=True)
    assert broken_rules(strict.families) == []


def test_the_rules_catch_what_is_planted() -> None:
    planted = [
        GaugeMetricFamily("hyperfleet_wait_ms", "About.", value=1),
        GaugeMetricFamily("hyperfleet_things_total", "About.", value=1),
        GaugeMetricFamily("hyperfleet_mute", " ", value=1),
        CounterMetricFamily("other_things", "About.", value=1),
        HistogramMetricFamily("hyperfleet_sizes", "About."),
    ]
    assert broken_rules(planted) == [
        "hyperfleet_wait_ms: no base unit",
        "hyperfleet_things_total: named as if it were no gauge",
        "hyperfleet_mute: no HELP",
        "other_things: whose is it?",
        "hyperfleet_sizes: a histogram of what?",
    ]


async def test_values_are_those_of_the_report() -> None:
    seen = Exposition(await scraped(report(WEB, "gone" * 3)))
    whole = {
        "up": 1,
        "connections": 1,
        "tunnels": 2,
        "connections_accepted_total": 3,
        "requests_total": 4,
        "received_bytes_total": 11,
        "sent_bytes_total": 12,
        "upstream_connects_total": 13,
        "upstream_reuses_total": 14,
        "requests_in_flight": 15,
        "request_duration_seconds_sum": 3.5,
        "first_byte_seconds_count": 4,
    }
    for name, value in whole.items():
        assert seen.value(f"hyperfleet_proxy_{name}") == value, name
    for name, value in zip(("1xx", "2xx", "3xx", "4xx", "5xx"), (5, 6, 7, 8, 9), strict=True):
        labels = {"class": name}
        assert seen.value("hyperfleet_proxy_responses_total", **labels) == value
    assert seen.value("hyperfleet_proxy_errors_total", code="not_found") == 10
    assert seen.value("hyperfleet_proxy_bounds_met_total", bound="client_connections") == 16
    buckets = seen.values("hyperfleet_proxy_request_duration_seconds_bucket")
    assert buckets == [2, 3, 4]
    port = {
        "requests_total": 9,
        "received_bytes_total": 100,
        "sent_bytes_total": 2000,
        "requests_in_flight": 3,
        "tunnels": 1,
        "request_duration_seconds_count": 4,
        "first_byte_seconds_sum": 0.002,
    }
    labels = {"machine_id": WEB, "machine": f"m-{WEB}", "port": "80"}
    for name, value in port.items():
        # By name alone: the machine that is gone has no row.
        assert seen.value(f"hyperfleet_machine_port_{name}") == value, name
        assert seen.value(f"hyperfleet_machine_port_{name}", **labels) == value, name
    bucket = "hyperfleet_machine_port_request_duration_seconds_bucket"
    assert seen.value(bucket, le="2.5", **labels) == 3
    assert seen.value("hyperfleet_machine_port_errors_total", code="upstream_timeout") == 2
    assert seen.value("hyperfleet_machine_connections") == 2
    last = seen.value("hyperfleet_machine_last_activity_timestamp_seconds")
    assert 60 <= time.time() - last < 120
    assert seen.value("hyperfleet_machines", status="running") == 1
    assert seen.value("hyperfleet_machines", status="stopped") == 1
    assert seen.value("hyperfleet_machines", status="failed") == 0


def test_those_that_stand_still_are_counted() -> None:
    machine = a_machine()
    for why, count in ((None, 0), ("no room", 1)):
        one = msgspec.structs.replace(machine, stalled=why)
        [family] = families.stalled([machine, one])
        assert [(sample.name, sample.value) for sample in family.samples] == [
            ("hyperfleet_machines_stalled", count)
        ]


async def test_machines_can_be_left_out() -> None:
    seen = Exposition(await scraped(report(), per_machine=False))
    assert not [name for name in seen.names() if name.startswith("hyperfleet_machine_port")]
    assert "hyperfleet_machine_connections" not in seen.names()
    assert seen.value("hyperfleet_proxy_requests_total") == 4


async def test_without_a_data_plane_the_rest_is_shown() -> None:
    seen = Exposition(await scraped(None))
    assert seen.value("hyperfleet_proxy_up") == 0
    assert "hyperfleet_proxy_requests" not in seen.names()
    assert seen.value("hyperfleet_machines", status="running") == 1
    assert seen.value("hyperfleet_build_info", driver="fake") == 1
    assert seen.value("process_cpu_seconds_total") > 0


async def test_what_the_fleet_does_is_counted() -> None:
    instruments = Instruments(driver="fake", proxy_pid=lambda: None)
    instruments.started(2.5, How.BOOT)
    instruments.start_failed()
    instruments.start_given_up()
    for outcome in ("ended", "timeout", "failed", "failed"):
        instruments.executed(outcome)
    instruments.looked(seen=True)
    instruments.looked(seen=False)

    async def away(_: bool) -> None:
        return None

    metrics = Metrics(instruments, machines=list, ask=away, per_machine=True)
    seen = Exposition((await metrics.scrape(""))[0].decode())
    for outcome in ("running", "failed", "given_up"):
        assert seen.value("hyperfleet_machine_starts_total", outcome=outcome) == 1
    assert seen.value("hyperfleet_machine_start_duration_seconds_sum", how="boot") == 2.5
    assert seen.value("hyperfleet_machine_start_duration_seconds_count", how="template") == 0
    assert seen.value("hyperfleet_execs_total", outcome="failed") == 2
    assert seen.value("hyperfleet_discovery_looks_total", outcome="seen") == 1


def test_a_report_of_another_shape_is_an_error_not_a_lie() -> None:
    broken = control.Histogram(counts=(1,), sum_us=1)
    counters = msgspec.structs.replace(COUNTERS, duration=broken)
    with pytest.raises(ValueError, match="shorter"):
        list(families.of_proxy(Report(counters=counters, machines=())))
