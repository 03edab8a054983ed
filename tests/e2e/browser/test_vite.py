"""Vite in the browser: all its files, a click, hot reload with and without loading the page."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from e2e.browser.dev_server import DevServer, Proxied, Site, documented, need_node, port_options
from e2e.browser.watched import Watched
from support.need import Need

PORT = 5173
FILES = (
    "@vite/client",
    "src/main.js",
    "src/greeting.js",
    "src/style.css",
    "src/drawing.svg?no-inline",
)


@pytest.fixture(scope="module")
def site(by: str, proxied: Proxied, need: Need) -> Iterator[Site]:
    """Set up as the how-to says: by host without a word in the server's configuration."""
    need_node(need)
    files = {} if by == "host" else {"vite.config.js": documented("vite.config.js, by path")}
    command = documented("npx vite", "bash")
    server = DevServer("vite", command, documented_port=PORT, ready="Local:", files=files)
    with proxied(server, PORT, port_options(f"Vite by {by}")) as made:
        yield made


def test_vite_with_its_hot_reload(site: Site, watched: Watched) -> None:
    address, server = site
    page = watched.page
    # Edits are told to those who are connected by then.
    with (
        page.expect_websocket() as hot,
        page.expect_console_message(lambda message: message.text == "[vite] connected."),
    ):
        page.goto(address)
    assert hot.value.url.startswith(address.replace("http", "ws", 1))
    expect(page.locator("#greeting")).to_have_text("hello")
    expect(page.locator("h1")).to_have_css("color", "rgb(1, 2, 3)")
    assert page.locator("#logo").evaluate("async image => (await image.decode(), image.width)") > 0
    for file in FILES:
        assert watched.status(f"{address}{file}") == 200, file

    button = page.locator("#count")
    button.click()
    expect(button).to_have_text("1")

    # The module is replaced in the page that is there: what was clicked stays.
    server.edit("src/greeting.js", "hello", "good day")
    expect(page.locator("#greeting")).to_have_text("good day")
    server.edit("src/style.css", "1, 2, 3", "4, 5, 6")
    expect(page.locator("h1")).to_have_css("color", "rgb(4, 5, 6)")
    expect(button).to_have_text("1")

    # The page itself is loaded again.
    server.edit("index.html", "<h1>before</h1>", "<h1>after</h1>")
    expect(page.locator("h1")).to_have_text("after")
    expect(button).to_have_text("0")
    expect(page.locator("#greeting")).to_have_text("good day")
