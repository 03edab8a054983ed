"""One answer to /metrics: everything gathered once for all who ask at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence

from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from hyperfleet.machine import Machine
from hyperfleet.metrics import families
from hyperfleet.metrics.instruments import Instruments
from hyperfleet.proxy.interface import Report

Ask = Callable[[bool], Awaitable[Report | None]]


class Metrics:
    """Answers scrapes."""

    def __init__(
        self,
        instruments: Instruments,
        *,
        machines: Callable[[], list[Machine]],
        ask: Ask,
        per_machine: bool,
    ) -> None:
        """Nothing is asked yet.

        Args:
            instruments: what this process counts.
            machines: all machines, whenever it is called.
            ask: the data plane's report, within a bounded time; its argument: machines' too.
            per_machine: whether rows of machines and ports are shown.
        """
        self.instruments = instruments
        self._machines = machines
        self._ask = ask
        self._per_machine = per_machine
        self._gathering: asyncio.Task[list[Metric]] | None = None

    async def scrape(self, accept: str) -> tuple[bytes, str]:
        """The text and its media type, as the Accept header asks: Prometheus' or OpenMetrics'."""
        gathering = self._gathering
        if gathering is None:
            gathering = asyncio.create_task(self._gather(), name="scrape")
            self._gathering = gathering
            gathering.add_done_callback(self._gathered)
        # One who asks and goes away must not end it for the others.
        found = await asyncio.shield(gathering)
        encode, media_type = choose_encoder(accept)
        # Of many machines it takes a while.
        return await asyncio.to_thread(encode, _Found(found)), media_type

    async def _gather(self) -> list[Metric]:
        report = await self._ask(self._per_machine)
        machines = self._machines()
        found = [
            *self.instruments.collect(),
            *families.by_status(machines),
            *families.stalled(machines),
            *families.of_proxy(report),
        ]
        if report is not None and self._per_machine:
            found += families.of_machines(report, machines)
        return found

    def _gathered(self, _: asyncio.Task[list[Metric]]) -> None:
        self._gathering = None


class _Found(Collector):
    """What the library's encoders take."""

    def __init__(self, found: Sequence[Metric]) -> None:
        self._found = found

    def collect(self) -> Iterable[Metric]:
        return self._found
