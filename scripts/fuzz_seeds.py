"""Writes a seed corpus for each fuzz target: the tests' cases and the wire's vectors.

python scripts/fuzz_seeds.py FOLDER      writes FOLDER/TARGET/NAME
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from support.cases import inputs  # noqa: E402

VECTORS = ROOT / "crates" / "wire" / "vectors"
# As in scripts/fuzz: longer ones are only slower.
LONGEST = 4096
# Payloads to be framed stand behind a byte of length.
LONGEST_FRAMED = 255
WEBSOCKET = (
    b"GET /proxy/web/80/ HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
    b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
)
FRAMES = (
    b"\x82\x03abc\x89\x00\x88\x02\x03\xe9",
    b"\x82\x7e\x00\x80" + bytes(128) + b"\x01\x85mask12345",
    b"\x82\x7f" + bytes(6) + b"\x01\x00" + bytes(256),
    b"\x82\xff" + b"\xff" * 8 + b"mask",
)


def main() -> None:
    folder = Path(sys.argv[1])
    for target, seeds in {
        "request": requests(),
        "response": responses(),
        "chunks": chunks(),
        "upgrade": upgrades(),
        "control": control(),
        "guest": guest(),
    }.items():
        (folder / target).mkdir(parents=True, exist_ok=True)
        for seed in seeds:
            if len(seed) <= LONGEST:
                (
                    folder / target / hashlib.sha1(seed, usedforsecurity=False).hexdigest()
                ).write_bytes(seed)


def requests() -> Iterator[bytes]:
    """Each by a stranger and by a trusted peer; then under settings and limits of another kind."""
    for case in inputs("requests"):
        for setting in (0, 1, 2 + 4 + 8, 16, 2 + 32):
            yield bytes([setting]) + case


def responses() -> Iterator[bytes]:
    """The answer to GET, to HEAD, to HTTP/1.0, to an upgrade, and under tight limits."""
    for case in inputs("responses"):
        for setting in (0, 1, 2, 4 + 16, 8, 32):
            yield bytes([setting]) + case


def chunks() -> Iterator[bytes]:
    """What follows a head, of both flavours, also under tight limits."""
    for case in (*inputs("requests"), *inputs("responses")):
        head, _, body = case.partition(b"\r\n\r\n")
        if b"chunked" in head.lower() and body:
            for flavour in range(4):
                yield bytes([flavour]) + body


def upgrades() -> Iterator[bytes]:
    yield from (b"\0" + WEBSOCKET + frames for frames in FRAMES)
    for case in inputs("requests"):
        if b"upgrade" in case.lower() and case.endswith(b"\r\n\r\n"):
            yield b"\0" + case + WEBSOCKET.partition(b"\r\n\r\n")[2] + FRAMES[0]


def control() -> Iterator[bytes]:
    for vector in json.loads((VECTORS / "control.json").read_text()):
        yield bytes([vector["direction"] != "to_proxy"]) + bytes.fromhex(vector["frame"])


def guest() -> Iterator[bytes]:
    for vector in json.loads((VECTORS / "guest.json").read_text()):
        speaker = vector["direction"] != "to_guest"
        payload = bytes.fromhex(vector["payload"])
        yield bytes([speaker]) + bytes.fromhex(vector["frame"])
        if len(payload) <= LONGEST_FRAMED:
            yield bytes([speaker + 2, len(payload)]) + payload
    for vector in json.loads((VECTORS / "guest_bad_payloads.json").read_text()):
        payload = bytes.fromhex(vector["payload"])[:LONGEST_FRAMED]
        yield bytes([(vector["direction"] != "to_guest") + 2, len(payload)]) + payload
    for vector in json.loads((VECTORS / "slip_streams.json").read_text()):
        yield b"\0" + b"".join(bytes.fromhex(p["hex"]) * p["times"] for p in vector["stream"])


if __name__ == "__main__":
    main()
