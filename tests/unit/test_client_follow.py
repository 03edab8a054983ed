"""The SDK's reader of events: cut anywhere, across connections, for as long as it is patient."""

from __future__ import annotations

import json

import pytest

from hyperfleet.client import ApiError, Event, Missed
from hyperfleet.client.follow import EventReader

SAID = {
    "at": "2030-01-31T12:00:00Z",
    "cause": "request",
    "machine": {"id": "abc123def456", "name": "web"},
    "status": "running",
}
STARTING = ApiError("CAPACITY", "The server is starting", 503, None)


def block(number: int, kind: str = "status") -> bytes:
    data = json.dumps({**SAID, "id": f"e-{number}", "type": kind})
    return f"id: e-{number}\nevent: {kind}\ndata: {data}\n\n".encode()


def heard(reader: EventReader, data: bytes) -> list[str]:
    return [
        one.id if isinstance(one, Event) else "missed"
        for at in range(len(data))
        for one in reader.feed(data[at : at + 1])
    ]


def asked_after(reader: EventReader) -> str | None:
    after: str | None = reader.request()["headers"].get("Last-Event-ID")
    return after


def test_events_from_bytes_and_where_to_go_on() -> None:
    reader = EventReader(None, None)
    assert asked_after(reader) is None
    begin = b"retry: 1000\nid: e-0\n\n"
    missed = b'event: missed\ndata: {"type":"missed"}\n\n'
    quiet = b": nothing new\nid: e-7\n\n"
    assert heard(reader, begin + block(1) + missed + block(2)) == ["e-1", "missed", "e-2"]
    assert asked_after(reader) == "e-2"
    assert heard(reader, quiet + block(8)[:-1]) == []
    # Half an event comes again, whole.
    reader.ended()
    assert asked_after(reader) == "e-7"
    assert heard(reader, block(8)) == ["e-8"]
    assert Missed() == Missed()


def test_one_machine_is_over_with_its_deletion() -> None:
    for machine, over in (("web", True), (None, False)):
        reader = EventReader(machine, "e-3")
        assert asked_after(reader) == "e-3"
        assert heard(reader, block(4, "deleted")) == ["e-4"]
        assert reader.over is over


def test_a_server_that_has_answered_is_waited_for() -> None:
    now = 0.0
    reader = EventReader(None, None, clock=lambda: now)
    assert not reader.may_try_again()
    with pytest.raises(ApiError):
        reader.refused(STARTING)
    assert heard(reader, block(1)) == ["e-1"]
    assert reader.may_try_again()
    now = 59.0
    reader.refused(STARTING)
    # What such an answer says is no event.
    assert heard(reader, b'{"error": {}}\n\n') == []
    reader.ended()
    now = 61.0
    assert not reader.may_try_again()
    with pytest.raises(ApiError):
        reader.refused(STARTING)
    with pytest.raises(ApiError):
        reader.refused(ApiError("FORBIDDEN", "no", 403, None))
