"""docs/how-to/prometheus.md: what it asks for is there, and its commands print what it says."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from support import plain, proxy
from support.metrics import Exposition
from support.need import Need
from support.page import Page, promised, types
from support.server import Server
from support.zygote import Zygote

PAGE = Page("docs/how-to/prometheus.md")


@pytest.fixture
def server(need: Need, zygote: Zygote) -> Iterator[Server]:
    proxy.binary(need)
    with Server(zygote=zygote, HYPERFLEET_VMM="fake") as made:
        yield made


def test_the_page_works_as_it_is_written(server: Server) -> None:
    [block] = PAGE.blocks()
    assert [output.strip() for output in types(server, block)] == promised(block)
    server.create("web", exposed_ports=[80])
    server.start_machine("web")
    server.sh("web", "echo hello > /www/index.html; httpd -p 80 -h /www")
    assert "hello" in plain.get(f"{server.proxy_url}/proxy/web/80/").text
    assert plain.get(f"{server.proxy_url}/proxy/nobody/80/").status_code == 404
    text = server.api.get("/metrics").text
    samples = {sample.name for family in Exposition(text).families for sample in family.samples}
    queries = PAGE.blocks("promql") + PAGE.blocks("yaml")
    asked = {name for query in queries for name in re.findall(r"hyperfleet_\w+", query)}
    assert len(asked) >= 8
    assert asked - samples == set()
    # Each label that a query picks by is one that its metric has.
    for query in queries:
        for name, label, value in re.findall(r'(hyperfleet_\w+)\{(\w+)="(\w+)"\}', query):
            assert re.search(rf"^{name}\{{[^}}]*{label}=", text, re.MULTILINE), (name, value)
    # The activity that a program sees is the same.
    activity = server.api.get("/machines/web/activity").json()
    assert activity["last_activity_at"] is not None
