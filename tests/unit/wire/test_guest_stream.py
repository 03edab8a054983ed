"""What a guest may send the host's decoder: anything, in pieces of any size."""

from __future__ import annotations

import json
import tracemalloc
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperfleet.wire import WireError, guest, slip

VECTORS = Path(__file__).parents[3] / "crates/wire/vectors"
SAID = [
    bytes.fromhex(row["payload"])
    for row in json.loads((VECTORS / "guest.json").read_text())
    if row["direction"] == "from_guest"
]


def verdicts(pieces: list[bytes]) -> list[Any]:
    """Each message, or the words of what was wrong; any other exception fails the test."""
    reader = slip.Reader()
    found: list[Any] = []
    for piece in pieces:
        for payload in reader.feed(piece):
            try:
                found.append(str(payload) if isinstance(payload, WireError) else decoded(payload))
            except WireError as error:
                found.append(str(error))
    return found


def decoded(payload: bytes) -> guest.FromGuest:
    return guest.decode_from_guest(payload)


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """Valid frames with bytes changed, taken out and put in, inside payloads and around them."""
    sent = bytearray()
    for payload in draw(st.lists(st.sampled_from(SAID), min_size=1, max_size=6)):
        sent += slip.frame(mutated(draw, payload))
    return mutated(draw, bytes(sent))


def mutated(draw: st.DrawFn, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(changed)))
        changed[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=4))
    return bytes(changed)


@settings(max_examples=300, deadline=None)
@given(stream=streams(), cuts=st.lists(st.integers(0, 2000), max_size=12))
def test_a_stream_gets_the_same_verdicts_however_it_is_cut(stream: bytes, cuts: list[int]) -> None:
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    pieces = [stream[a:b] for a, b in pairwise(edges)]
    whole = verdicts([stream])
    assert verdicts(pieces) == whole
    assert verdicts([stream[at : at + 1] for at in range(len(stream))]) == whole


def test_a_frame_that_drips_in_is_held_at_about_its_own_size() -> None:
    reader = slip.Reader()
    tracemalloc.start()
    try:
        for at in range(slip.MAX_PAYLOAD):
            assert not list(reader.feed(bytes((at % 0xC0,))))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * slip.MAX_PAYLOAD, f"{peak / slip.MAX_PAYLOAD:.1f} times the bytes"


def test_listeners_over_the_bound_are_refused() -> None:
    one = guest.ListenerMessage(port=80, address="0.0.0.0", direct=True)
    most = guest.Listeners(id=1, listeners=(one,) * guest.MAX_LISTENERS, truncated=True)
    assert guest.decode_from_guest(guest.encode(most)) == most
    over = msgspec.structs.replace(most, listeners=(*most.listeners, one))
    with pytest.raises(WireError, match="listeners"):
        guest.decode_from_guest(guest.encode(over))
