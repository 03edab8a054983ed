"""What happens to machines, told while it happens; the whole server, on the fake driver."""

from __future__ import annotations

import asyncio
import json
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from hyperfleet.client import ApiError, AsyncClient, Client, Event, Missed, UnreachableError
from support import plain, proxy
from support.need import Need
from support.page import Page
from support.server import Server
from support.zygote import Zygote

LIMIT = 30
SURVIVES = "fake.survives=true"


@pytest.fixture
def server(need: Need, zygote: Zygote) -> Iterator[Server]:
    proxy.binary(need)
    with Server(HYPERFLEET_VMM="fake", zygote=zygote) as made:
        yield made


class Ear:
    """Hears in a thread what an iterator gives; `next` waits for it, and raises what it raised."""

    def __init__(self, told: Iterator[Any]) -> None:
        self._heard: queue.Queue[Any] = queue.Queue()
        self._thread = threading.Thread(target=self._hear, args=(told,), daemon=True)
        self._thread.start()

    def next(self) -> Any:
        found = self._heard.get(timeout=LIMIT)
        if isinstance(found, BaseException):
            raise found
        return found

    def until(self, wanted: Callable[[Any], bool]) -> list[Any]:
        found = [self.next()]
        while not wanted(found[-1]):
            found.append(self.next())
        return found

    def _hear(self, told: Iterator[Any]) -> None:
        try:
            for one in told:
                self._heard.put(one)
            self._heard.put(StopIteration())
        except Exception as error:  # noqa: BLE001 - raised where it is waited for
            self._heard.put(error)


@contextmanager
def sdk(server: Server) -> Iterator[Client]:
    with Client(server.api_url, server.key) as client:
        yield client


def raw(server: Server, **asked: Any) -> Iterator[str]:
    """The lines of the stream itself."""
    with server.api.stream("GET", "/events", **asked) as answer:
        assert answer.status_code == httpx.codes.OK
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        assert answer.headers["Cache-Control"] == "no-store"
        yield from answer.iter_lines()


def first_id(server: Server) -> str:
    """The id after which everything comes that has not happened yet."""
    lines = raw(server)
    assert next(lines) == "retry: 1000"
    return next(lines).removeprefix("id: ")


def told(event: Event) -> tuple[str, str, str]:
    return event.type, event.status, event.cause


def test_a_machines_whole_life(server: Server) -> None:
    begin = first_id(server)
    made = server.create("web", exposed_ports=[80])
    server.start_machine("web")
    server.sh("web", "echo hi > /index.html; httpd -p 80 -h /")
    server.api.get("/machines/web/ports")
    with sdk(server) as client:
        ear = Ear(client.follow_events(after=begin))
        *_, port = ear.until(lambda event: event.type == "port")
        assert (port.port.port, port.port.listening, port.port.address) == (80, True, "0.0.0.0")
        assert port.port.urls.path.endswith(f"/proxy/{made['id']}/80/")
        server.api.patch("/machines/web", json={"labels": {"a": "b"}, "exposed_ports": [80, 81]})
        changed = ear.next()
        assert (changed.type, set(changed.fields)) == ("changed", {"labels", "exposed_ports"})
        server.api.post("/machines/web/stop")
        server.api.delete("/machines/web")
        rest = ear.until(lambda event: event.type == "deleted")
    with sdk(server) as client:
        again = Ear(client.follow_events(machine=None, after=begin))
        whole = again.until(lambda event: event.type == "deleted")
    assert whole[-len(rest) :] == rest
    assert [told(event) for event in whole] == [
        ("created", "pending", "request"),
        ("status", "starting", "request"),
        ("status", "running", "request"),
        ("port", "running", "discovery"),
        ("changed", "running", "request"),
        ("status", "stopping", "request"),
        ("status", "stopped", "request"),
        ("port", "stopped", "request"),
        ("deleted", "stopped", "request"),
    ]
    assert {(event.machine.id, event.machine.name) for event in whole} == {(made["id"], "web")}
    assert [event.before for event in whole if event.type == "status"] == [
        "pending",
        "starting",
        "running",
        "stopping",
    ]


def test_why_a_machine_failed_and_that_it_comes_up_by_itself(server: Server) -> None:
    server.create("dies", kernel_args="fake.dies_after=1.5", restart="on-failure")
    with sdk(server) as client:
        ear = Ear(client.follow_events(after=first_id(server)))
        server.start_machine("dies")
        *_, failed = ear.until(lambda event: event.status == "failed")
        assert failed.cause == "machine"
        assert "killed by signal 9" in failed.message
        *_, again = ear.until(lambda event: event.status == "starting")
        assert again.cause == "policy"


def test_one_machines_events_end_with_it(server: Server) -> None:
    for name in ("web", "other"):
        server.create(name)
    with sdk(server) as client:
        ear = Ear(client.follow_events(machine="web", after=first_id(server)))
        server.start_machine("other")
        server.start_machine("web")
        assert [told(ear.next())[1] for _ in range(2)] == ["starting", "running"]
        server.api.delete("/machines/web?force=true")
        heard = ear.until(lambda event: event.type == "deleted")
        assert {event.machine.name for event in heard} == {"web"}
        with pytest.raises(StopIteration):
            ear.next()
        with pytest.raises(ApiError, match="Machine not found: web"):
            Ear(client.follow_events(machine="web")).next()


def test_what_is_asked_wrongly(server: Server) -> None:
    for id_ in ("x", "-1", "abc-", "abc-1x", "abc-\N{SUPERSCRIPT TWO}"):
        answer = server.api.get("/events", params={"after": id_})
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "VALIDATION_ERROR")
    answer = server.api.get("/events", headers={"Last-Event-ID": "x"})
    assert "Last-Event-ID must be the id of an event" in answer.json()["error"]["message"]
    assert plain.get(f"{server.api_url}/events").status_code == httpx.codes.UNAUTHORIZED


def test_head_ends(server: Server) -> None:
    for path in ("/events", "/machines/web/logs?follow=true"):
        server.create("web") if "logs" in path else None
        answer = server.api.head(path, timeout=LIMIT)
        assert (answer.status_code, answer.content) == (200, b"")


def test_events_of_another_server_are_missed(server: Server) -> None:
    server.create("web")
    lines = raw(server, headers={"Last-Event-ID": "00000000-7"})
    heard = [next(lines) for _ in range(8)]
    assert heard[3:6] == ["event: missed", 'data: {"type":"missed"}', ""]
    assert json.loads(next(lines).removeprefix("data: "))["type"] == "created"


def test_a_follower_goes_on_through_a_restart_of_the_server(server: Server) -> None:
    server.create("web", kernel_args=SURVIVES)
    server.start_machine("web")
    with sdk(server) as client:
        ear = Ear(client.follow_events(after=first_id(server)))
        server.api.patch("/machines/web", json={"labels": {"a": "b"}})
        assert ear.next().type == "changed"
        # It is not waited for.
        assert server.stop() == 0
        server.start()
        assert isinstance(ear.next(), Missed)
        server.api.post("/machines/web/stop")
        *_, stopped = ear.until(lambda event: getattr(event, "status", "") == "stopped")
        assert told(stopped) == ("status", "stopped", "request")


async def test_with_asyncio(server: Server) -> None:
    begin = first_id(server)
    server.create("web")
    server.start_machine("web")
    async with AsyncClient(server.api_url, server.key) as client, asyncio.timeout(LIMIT):
        heard = []
        async for event in client.follow_events(machine="web", after=begin):
            assert isinstance(event, Event)
            heard.append(event.type)
            if event.status == "running":
                await client.delete_machine("web", force=True)
        assert heard == ["created", *["status"] * 4, "deleted"]
        with pytest.raises(ApiError):
            await anext(client.follow_logs("web"))


def test_no_server_at_first_is_an_error() -> None:
    with Client("http://127.0.0.1:1", "hf_x") as client, pytest.raises(UnreachableError):
        next(client.follow_events())


def test_a_console_that_is_followed_through_a_restart_to_its_end(server: Server) -> None:
    server.create("web")
    server.start_machine("web")
    ready = "hyperfleet-agent: ready\n"
    with sdk(server) as client:
        ear = Ear(client.follow_logs("web", tail=1))
        assert ear.next() == ready
        server.api.post("/machines/web/restart")
        assert ear.next() == ready
        server.api.delete("/machines/web?force=true")
        with pytest.raises(StopIteration):
            ear.next()
        with pytest.raises(ApiError, match="Machine not found"):
            next(client.follow_logs("web"))


def test_the_references_example(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    example = Page("docs/reference/events.md").block_with("follow_events", "python")
    names = {"url": server.api_url, "key": server.key}
    following = threading.Thread(target=exec, args=(example, names), daemon=True)
    following.start()
    deadline = time.monotonic() + LIMIT
    # Nobody tells when it has begun to follow.
    while following.is_alive():
        assert time.monotonic() < deadline
        server.create("web")
        assert server.api.delete("/machines/web").status_code == httpx.codes.NO_CONTENT
    assert capsys.readouterr().out.splitlines()[-1] == "deleted web pending"
