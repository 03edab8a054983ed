"""What all clients share: the data plane, each client's results, the table at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from integration.clients.libraries import HTTP_CLIENTS, WEBSOCKET_CLIENTS, Client, run
from integration.clients.plane import Plane, opened
from integration.clients.scenarios import SCENARIOS
from integration.clients.table import Table
from integration.clients.websocket_scenarios import WEBSOCKET_SCENARIOS
from support.need import Need
from support.shared import SHARED


@pytest.fixture(scope="module")
def plane(need: Need, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    with opened(need, tmp_path_factory.mktemp("proxy")) as made:
        yield made


@pytest.fixture(scope="module")
def results(need: Need, plane: Plane) -> Callable[[Client, tuple[Any, ...]], dict[str, Any]]:
    """What a client tells of all its scenarios, by their names; it is run once."""
    known: dict[tuple[str, int], dict[str, Any]] = {}

    def results(client: Client, scenarios: tuple[Any, ...]) -> dict[str, Any]:
        key = (client.name, id(scenarios))
        if key not in known:
            plane.forget()
            known[key] = run(client, need, plane.origin, scenarios)
        return known[key]

    return results


@pytest.fixture(scope="session")
def table(request: pytest.FixtureRequest) -> Iterator[Table]:
    """To fill in; told when the tests end."""
    made = Table(
        {
            "HTTP": ([c.name for c in HTTP_CLIENTS], [s.name for s in SCENARIOS]),
            "WebSocket": (
                [c.name for c in WEBSOCKET_CLIENTS],
                [s.name for s in WEBSOCKET_SCENARIOS],
            ),
        }
    )
    yield made
    request.config.stash[SHARED].tell(f"clients through the proxy\n\n{made.text()}")
