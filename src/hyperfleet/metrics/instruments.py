"""What the control plane counts of itself: requests, starts, execs, looks, its process."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram, Info, ProcessCollector
from prometheus_client.core import Metric

from hyperfleet import __version__
from hyperfleet.lifecycle import Status
from hyperfleet.machine import How

_API_BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_START_BOUNDS_S = (0.1, 0.25, 0.5, 1, 2, 3, 5, 7.5, 10, 15, 30, 60, 120)
# A method is whatever a client writes; its label may not be.
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Instruments:
    """Counted as it happens. The fleet's `Observer`, and the API's."""

    def __init__(self, *, driver: str, proxy_pid: Callable[[], int | None]) -> None:
        """`driver` as people know it; `proxy_pid` is the data plane's process, None: away."""
        registry = CollectorRegistry()
        self._registry = registry
        build = Info("hyperfleet_build", "What runs here.", registry=registry)
        build.info({"version": __version__, "driver": driver})
        ProcessCollector(registry=registry)
        # Without a process there is no such folder in /proc, hence no rows.
        ProcessCollector("hyperfleet_proxy", lambda: proxy_pid() or "away", registry=registry)
        self._requests = Counter(
            "hyperfleet_api_requests",
            "The API's requests; HEAD counts as the GET that it is served as.",
            ("method", "route", "status"),
            registry=registry,
        )
        self._durations = Histogram(
            "hyperfleet_api_request_duration_seconds",
            "How long they took, waiting for machines included.",
            ("method", "route"),
            buckets=_API_BOUNDS_S,
            registry=registry,
        )
        self._starts = Counter(
            "hyperfleet_machine_starts", "Boots by outcome.", ("outcome",), registry=registry
        )
        self._start_durations = Histogram(
            "hyperfleet_machine_start_duration_seconds",
            "From a start's turn in the queue of boots until the machine ran, by how it began.",
            ("how",),
            buckets=_START_BOUNDS_S,
            registry=registry,
        )
        self._execs = Counter(
            "hyperfleet_execs", "Processes run in machines.", ("outcome",), registry=registry
        )
        looks = Counter(
            "hyperfleet_discovery_looks",
            "Looks at what listens in machines.",
            ("outcome",),
            registry=registry,
        )
        for outcome in (Status.RUNNING.value, Status.FAILED.value, "given_up"):
            self._starts.labels(outcome)
        for how in How:
            self._start_durations.labels(how.value)
        for outcome in ("ended", "timeout", "failed"):
            self._execs.labels(outcome)
        # They are counted a thousand times a second, with many machines.
        self._looks_by = {
            seen: looks.labels("seen" if seen else "failed") for seen in (True, False)
        }

    def collect(self) -> Iterable[Metric]:
        """All that was counted."""
        return self._registry.collect()

    def request(self, method: str, route: str | None, status: int, seconds: float) -> None:
        """An answer of the API's; `route` is the template of its path, None: there is none."""
        method = method if method in _METHODS else "other"
        labels = (method, route or "none")
        self._requests.labels(*labels, str(status)).inc()
        self._durations.labels(*labels).observe(seconds)

    def started(self, seconds: float, how: How) -> None:
        """See `Observer.started`."""
        self._starts.labels(Status.RUNNING.value).inc()
        self._start_durations.labels(how.value).observe(seconds)

    def start_failed(self) -> None:
        """See `Observer.start_failed`."""
        self._starts.labels(Status.FAILED.value).inc()

    def start_given_up(self) -> None:
        """See `Observer.start_given_up`."""
        self._starts.labels("given_up").inc()

    def executed(self, outcome: str) -> None:
        """See `Observer.executed`."""
        self._execs.labels(outcome).inc()

    def looked(self, *, seen: bool) -> None:
        """See `Observer.looked`."""
        self._looks_by[seen].inc()
