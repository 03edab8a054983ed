"""Debian's Chromium, driven by Playwright, on pages that come through a real data plane.

The servers run on this host's loopback in place of a machine: a guest under emulation would take
minutes to start them. For the browser, the proxy and the servers nothing differs by that; the way
from the proxy into a machine is tested by tests/e2e/test_traffic.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright

from e2e.browser.dev_server import DevServer, Proxied, Site
from e2e.browser.watched import Watched
from support.need import Need
from support.proxy import Proxy, machine

# Milliseconds, as a guard.
PATIENCE = 60_000
SUFFIX = ".machines.test"
# Names under the suffix are this host's; no other is looked up, so nothing leaves it.
RESOLVER = f"MAP *{SUFFIX} 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
FLAGS = (
    f"--host-resolver-rules={RESOLVER}",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
)


@pytest.fixture(scope="module")
def browser(need: Need) -> Iterator[Browser]:
    """Ended with each module: while it runs, the thread's event loop is Playwright's."""
    program = need("chromium")
    with sync_playwright() as playwright:
        # Playwright's default is to run it without its sandbox, as root has to.
        running = playwright.chromium.launch(executable_path=program, args=list(FLAGS))
        yield running
        running.close()


@pytest.fixture
def watched(browser: Browser) -> Iterator[Watched]:
    """A page of a fresh profile; the test fails if anything goes wrong in it."""
    context = browser.new_context()
    context.set_default_timeout(PATIENCE)
    made = Watched(context.new_page())
    yield made
    context.close()
    assert made.wrong == []


@pytest.fixture(scope="module", params=["path", "host"])
def by(request: pytest.FixtureRequest) -> str:
    """How the browser names the machine: by path or by host."""
    mode: str = request.param
    return mode


@pytest.fixture(scope="module")
def proxied(need: Need, by: str, tmp_path_factory: pytest.TempPathFactory) -> Proxied:
    """Puts a data plane before a server: it is port `port` of the machine `web`."""

    @contextmanager
    def proxied(
        server: DevServer, port: int, options: Mapping[str, Any] | None = None
    ) -> Iterator[Site]:
        machines = [machine("web", {port: server.port}, options=options)]
        with server, Proxy(need, tmp_path_factory.mktemp("proxy"), machines, SUFFIX) as proxy:
            address = proxy.path("web", port) if by == "path" else proxy.host("web", port)
            yield Site(f"{address}/", server)

    return proxied
