"""What the data plane reports and what machines there are, as Prometheus' metric families. Pure.

Names and units follow Prometheus' conventions (Metric and label naming): base units, `_total`.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from hyperfleet.lifecycle import Status
from hyperfleet.machine import Machine
from hyperfleet.proxy.interface import Report
from hyperfleet.wire import control

_CLASSES = ("1xx", "2xx", "3xx", "4xx", "5xx")
_MACHINE = ("machine_id", "machine")
_PORT = (*_MACHINE, "port")


def by_status(machines: Iterable[Machine]) -> Iterator[Metric]:
    """How many machines are in each state, those with none among them."""
    counted = Counter(machine.status for machine in machines)
    family = GaugeMetricFamily("hyperfleet_machines", "Machines by status.", labels=["status"])
    for status in Status:
        family.add_metric([status.value], counted[status])
    yield family


def stalled(machines: Iterable[Machine]) -> Iterator[Metric]:
    """How many machines stand still although they run."""
    yield GaugeMetricFamily(
        "hyperfleet_machines_stalled",
        "Machines that run and stand still, such as for want of room on the host's disk.",
        value=sum(machine.stalled is not None for machine in machines),
    )


def of_proxy(report: Report | None) -> Iterator[Metric]:
    """The data plane as a whole; None: it is away."""
    yield _gauge("up", "Whether the data plane answers.", int(report is not None))
    if report is None:
        return
    counters = report.counters
    yield _gauge("connections", "Clients' connections that are open.", counters.connections)
    yield _gauge("tunnels", "WebSockets and other tunnels that are open.", counters.tunnels)
    yield _gauge(
        "requests_in_flight",
        "Requests that machines have not answered whole, tunnels among them.",
        counters.in_flight,
    )
    yield _counter("connections_accepted", "Clients' connections.", counters.accepted)
    yield _counter("requests", "Requests.", counters.requests)
    responses = _family("responses", "Answers by class of status, interim ones too.", ["class"])
    for name, count in zip(_CLASSES, counters.responses, strict=True):
        responses.add_metric([name], count)
    yield responses
    errors = _family("errors", "Answers of the proxy's own by X-Hyperfleet-Error.", ["code"])
    for code, count in counters.errors:
        errors.add_metric([code], count)
    yield errors
    bounds = _family("bounds_met", "How often a bound was met, by its name.", ["bound"])
    for bound, count in counters.bounds.items():
        bounds.add_metric([bound], count)
    yield bounds
    yield _counter("received_bytes", "Bytes that clients sent.", counters.bytes_in)
    yield _counter("sent_bytes", "Bytes that clients were sent.", counters.bytes_out)
    yield _counter("upstream_connects", "Connections made to machines.", counters.upstream_connects)
    yield _counter(
        "upstream_reuses", "Requests on a kept connection to a machine.", counters.upstream_reuses
    )
    for name, about, histogram in (
        ("request_duration", _DURATION, counters.duration),
        ("first_byte", _FIRST_BYTE, counters.first_byte),
    ):
        family = HistogramMetricFamily(f"hyperfleet_proxy_{name}_seconds", about)
        _add(family, [], counters, histogram)
        yield family


_DURATION = (
    "From a request's first byte to its response's last, of responses that were passed on whole."
)
_FIRST_BYTE = "From a request's first byte to the machine's first."


def of_machines(report: Report, machines: Iterable[Machine]) -> Iterator[Metric]:
    """What each machine and port was asked; only those that were ever asked for something."""
    names = {machine.id: machine.spec.name for machine in machines}
    connections = GaugeMetricFamily(
        "hyperfleet_machine_connections",
        "The proxy's connections to the machine, idle ones among them.",
        labels=_MACHINE,
    )
    active = GaugeMetricFamily(
        "hyperfleet_machine_last_activity_timestamp_seconds",
        "When the last byte passed to or from the machine.",
        labels=_MACHINE,
    )
    now = time.time()
    ports = _Ports()
    for meters in report.machines:
        # One that was just deleted may still be reported.
        if meters.id in names:
            labels = [meters.id, names[meters.id]]
            connections.add_metric(labels, meters.connections)
            active.add_metric(labels, now - meters.idle_ms / 1000)
            for port in meters.ports:
                ports.add([*labels, str(port.port)], port, report.counters)
    yield connections
    yield active
    yield from ports.families


class _Ports:
    """The families of ports, filled row by row."""

    def __init__(self) -> None:
        def counter(name: str, about: str, *more: str) -> CounterMetricFamily:
            return CounterMetricFamily(
                f"hyperfleet_machine_port_{name}", about, labels=(*_PORT, *more)
            )

        def gauge(name: str, about: str) -> GaugeMetricFamily:
            return GaugeMetricFamily(f"hyperfleet_machine_port_{name}", about, labels=_PORT)

        def histogram(name: str, about: str) -> HistogramMetricFamily:
            return HistogramMetricFamily(f"hyperfleet_machine_port_{name}", about, labels=_PORT)

        self._requests = counter("requests", "Requests for the port.")
        self._responses = counter("responses", "Final answers by class of status.", "class")
        self._errors = counter("errors", "Answers of the proxy's own.", "code")
        self._received = counter("received_bytes", "Bytes of requests and from tunnels' clients.")
        self._sent = counter("sent_bytes", "Bytes of responses and to tunnels' clients.")
        self._in_flight = gauge("requests_in_flight", "Requests not yet answered whole.")
        self._tunnels = gauge("tunnels", "WebSockets and other tunnels that are open.")
        self._duration = histogram("request_duration_seconds", _DURATION)
        self._first_byte = histogram("first_byte_seconds", _FIRST_BYTE)
        self.families: tuple[Metric, ...] = (
            self._requests,
            self._responses,
            self._errors,
            self._received,
            self._sent,
            self._in_flight,
            self._tunnels,
            self._duration,
            self._first_byte,
        )

    def add(
        self, labels: Sequence[str], port: control.PortMeters, counters: control.Counters
    ) -> None:
        self._requests.add_metric(labels, port.requests)
        for name, count in zip(_CLASSES, port.responses, strict=True):
            self._responses.add_metric([*labels, name], count)
        for code, count in port.errors:
            self._errors.add_metric([*labels, code], count)
        self._received.add_metric(labels, port.bytes_in)
        self._sent.add_metric(labels, port.bytes_out)
        self._in_flight.add_metric(labels, port.in_flight)
        self._tunnels.add_metric(labels, port.tunnels)
        _add(self._duration, labels, counters, port.duration)
        _add(self._first_byte, labels, counters, port.first_byte)


def _add(
    family: HistogramMetricFamily,
    labels: Sequence[str],
    counters: control.Counters,
    histogram: control.Histogram,
) -> None:
    """Adds a row: each of our buckets counts by itself, Prometheus' count what is below, too."""
    bounds = [f"{us / 1_000_000:g}" for us in counters.bounds_us]
    below, buckets = 0, []
    for bound, count in zip([*bounds, "+Inf"], histogram.counts, strict=True):
        below += count
        buckets.append((bound, float(below)))
    family.add_metric(labels, buckets, sum_value=histogram.sum_us / 1_000_000)


def _gauge(name: str, about: str, value: float) -> Metric:
    return GaugeMetricFamily(f"hyperfleet_proxy_{name}", about, value=value)


def _counter(name: str, about: str, value: float) -> Metric:
    return CounterMetricFamily(f"hyperfleet_proxy_{name}", about, value=value)


def _family(name: str, about: str, labels: list[str]) -> CounterMetricFamily:
    return CounterMetricFamily(f"hyperfleet_proxy_{name}", about, labels=labels)
