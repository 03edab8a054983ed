"""Python's side of `crates/wire/vectors`; Rust's is `crates/wire/tests/vectors.rs`.

The same bytes and the same verdicts in both languages.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hyperfleet.wire import WireError, control, files, guest, length, slip

VECTORS = Path(__file__).parents[3] / "crates/wire/vectors"
DECODERS = {
    "to_guest": guest.decode_to_guest,
    "from_guest": guest.decode_from_guest,
    "to_proxy": msgspec.msgpack.Decoder(control.ToProxy).decode,
    "from_proxy": control.decode_from_proxy,
    "from_files": files.decode,
}


def vectors(file: str) -> list[Any]:
    rows: list[Any] = json.loads((VECTORS / file).read_text())
    return [pytest.param(row, id=f"{row.get('direction', '')}: {row['name']}") for row in rows]


def plain(value: Any) -> Any:
    """What JSON can hold: bytes are lists of numbers."""
    if isinstance(value, bytes):
        return list(value)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    "vector", vectors("guest.json") + vectors("control.json") + vectors("files.json")
)
def test_messages_and_frames(vector):
    payload = bytes.fromhex(vector["payload"])
    message = DECODERS[vector["direction"]](payload)
    assert plain(msgspec.msgpack.decode(payload)) == vector["message"]
    assert guest.encode(message) == payload
    framing = slip.frame if "guest" in vector["direction"] else length.frame
    assert framing(payload).hex() == vector["frame"]


@pytest.mark.parametrize("vector", vectors("slip_streams.json"))
@pytest.mark.parametrize("piece", [1, 7, 4096, None])
def test_streams_of_frames_get_their_verdicts_however_they_are_cut(vector, piece):
    stream = b"".join(bytes.fromhex(part["hex"]) * part["times"] for part in vector["stream"])
    # A byte at a time the longest would take minutes here; Rust does it.
    step = max(piece, len(stream) // 500_000) if piece else len(stream)
    reader = slip.Reader()
    verdicts = [
        verdict(frame)
        for at in range(0, len(stream), step)
        for frame in reader.feed(stream[at : at + step])
    ]
    assert verdicts == vector["verdicts"]


def verdict(frame: bytes | WireError) -> str:
    if isinstance(frame, bytes):
        return "largest" if len(frame) == slip.MAX_PAYLOAD else frame.hex()
    kinds = {"frame is larger": "too_large", "corrupt frame": "corrupt", "framing": "unknown"}
    return next(kind for start, kind in kinds.items() if frame.message.startswith(start))


@pytest.mark.parametrize("vector", vectors("guest_bad_payloads.json"))
def test_payloads_that_are_no_message_are_refused(vector):
    with pytest.raises(WireError):
        DECODERS[vector["direction"]](bytes.fromhex(vector["payload"]))
