"""A FastAPI application in the browser: events one by one, a WebSocket, a form, reloading."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import expect

from e2e.browser.dev_server import DevServer, Proxied, Site, documented
from e2e.browser.watched import Watched

PORT = 8000
PREFIX = f"/proxy/web/{PORT}"


@pytest.fixture(scope="module")
def site(by: str, proxied: Proxied) -> Iterator[Site]:
    """Set up as the how-to says."""
    command = documented(f"# uvicorn, by {by}", "bash")
    server = DevServer("uvicorn", command, documented_port=PORT, ready="startup complete", files={})
    with proxied(server, PORT) as made:
        yield made


def test_events_arrive_one_by_one(site: Site, watched: Watched) -> None:
    address, server = site
    page = watched.page
    page.goto(address)
    page.wait_for_function("events.readyState === EventSource.OPEN")
    for number in range(3):
        # Each is sent only after the one before is seen: nothing can have been held back.
        told = httpx.post(f"http://127.0.0.1:{server.port}/events/number-{number}")
        assert told.json() == 1
        expect(page.locator("#events li")).to_have_text([f"number-{n}" for n in range(number + 1)])


def test_a_websocket_of_the_application(site: Site, watched: Watched) -> None:
    address, _ = site
    page = watched.page
    page.goto(address)
    page.wait_for_function("socket.readyState === WebSocket.OPEN")
    for number in range(1, 3):
        page.locator("#say").click()
        expect(page.locator("#messages li")).to_have_count(number)
    path = PREFIX if PREFIX in address else ""
    expect(page.locator("#messages li").last).to_have_text(f"hello from {path}/ws")


def test_a_form_with_its_redirect_and_cookie(site: Site, watched: Watched) -> None:
    address, _ = site
    page = watched.page
    page.goto(address)
    assert watched.status(f"{address}static/page.js") == 200
    expect(page.locator("#greeting")).to_have_text("Hello, stranger")
    page.locator("input").fill("Ada")
    page.get_by_role("button", name="Greet").click()
    expect(page.locator("#greeting")).to_have_text("Hello, Ada")
    assert page.url == address
    [cookie] = page.context.cookies()
    assert (cookie["path"], cookie["httpOnly"]) == (PREFIX if PREFIX in address else "/", True)


def test_a_changed_file_is_there_after_loading_the_page(site: Site, watched: Watched) -> None:
    address, server = site
    page = watched.page
    page.goto(address)
    expect(page.locator("h1")).to_have_text("before")
    page.wait_for_function("events.readyState === EventSource.OPEN")
    server.restarts(lambda: server.edit("app.py", 'TITLE = "before"', 'TITLE = "after"'))
    # The stream was cut by the old server's end; what is wrong from here on is wrong.
    page.goto("about:blank")
    watched.wrong.clear()
    page.goto(address)
    expect(page.locator("h1")).to_have_text("after")
