"""SvelteKit in the browser: a page made by the server, a click, a form, a cookie, hot reload."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from e2e.browser.dev_server import DevServer, Proxied, Site, documented, need_node, port_options
from e2e.browser.watched import Watched
from support.need import Need

PORT = 5173
# Until then the page is the server's: a click does nothing yet, a link loads a page.
READY = "document.body.dataset.ready"


@pytest.fixture(scope="module")
def site(by: str, proxied: Proxied, need: Need) -> Iterator[Site]:
    """Set up as the how-to says."""
    need_node(need)
    files = {"vite.config.js": documented(f"vite.config.js, SvelteKit by {by}")}
    options = None
    if by == "path":
        files["svelte.config.js"] = documented("svelte.config.js, by path")
        options = port_options("Vite by path")
    command = documented("npx vite", "bash")
    server = DevServer("sveltekit", command, documented_port=PORT, ready="Local:", files=files)
    with proxied(server, PORT, options) as made:
        yield made


def test_sveltekit_with_its_hot_reload(site: Site, watched: Watched) -> None:
    address, server = site
    page = watched.page
    with page.expect_console_message(lambda message: message.text == "[vite] connected."):
        page.goto(address)
    expect(page.locator("h1")).to_have_text("before")
    assert watched.status(f"{address}logo.svg") == 200

    button = page.locator("#count")
    page.wait_for_function(READY)
    button.click()
    expect(button).to_have_text("1")
    server.edit("src/routes/+page.svelte", "<h1>before</h1>", "<h1>after</h1>")
    expect(page.locator("h1")).to_have_text("after")

    # The form's answer is a redirect with a cookie, which is there on the next page.
    page.locator("input").fill("Ada")
    page.get_by_role("button", name="Greet").click()
    expect(page.locator("#greeting")).to_have_text("Hello, Ada")
    assert page.url == f"{address}greeting"
    [cookie] = page.context.cookies()
    assert cookie["path"] == address.removeprefix(f"{page.evaluate('location.origin')}")

    page.wait_for_function(READY)

    # There by a link without loading the page, and by loading it.
    page.evaluate("window.marked = true")
    page.get_by_role("link", name="Home").click()
    expect(page.locator("h1")).to_have_text("after")
    page.get_by_role("link", name="Greeting").click()
    expect(page.locator("#greeting")).to_have_text("Hello, Ada")
    assert page.evaluate("window.marked")
    page.reload()
    page.wait_for_function(READY)
    expect(page.locator("#greeting")).to_have_text("Hello, Ada")
