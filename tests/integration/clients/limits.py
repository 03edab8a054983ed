"""What a library can't do or can't show, with the reason: the gaps in the table of clients."""

from __future__ import annotations

_NO_SOCKET = "gives no access to the socket"
_NO_INTERIM = "drops 1xx but 100"

# A scenario that the client is not asked for.
CANNOT: dict[tuple[str, str], str] = {
    ("curl", "half-close"): "never shuts its sending side down",
    ("curl", "no bytes, chunked"): "7.88 sends no last chunk of an empty file",
    ("curl", "answer while uploading"): "7.88 may stall while its standard input has nothing",
    ("curl", "trailers up"): "libcurl's CURLOPT_TRAILERFUNCTION has no option of the tool",
    ("httpx", "100-continue, continued"): "sends Expect, and the body without waiting",
    ("httpx", "100-continue, refused"): "sends Expect, and the body without waiting",
    ("httpx", "answer while uploading"): "reads only when all of the body is sent",
    ("httpx", "half-close"): _NO_SOCKET,
    ("httpx", "trailers up"): "has no trailers",
    ("aiohttp", "half-close"): _NO_SOCKET,
    ("aiohttp", "trailers up"): "has no trailers",
    ("aiohttp", "fragments up"): "sends every message whole",
    ("fetch", "100-continue, continued"): "Expect is a forbidden header",
    ("fetch", "100-continue, refused"): "Expect is a forbidden header",
    ("fetch", "half-close"): _NO_SOCKET,
    ("fetch", "trailers up"): "has no trailers",
}

# What an answer has and the client does not show; the rest of the scenario counts.
BLIND: dict[tuple[str, str], str] = {
    ("httpx", "interim"): _NO_INTERIM,
    ("httpx", "trailers"): "drops trailers",
    ("aiohttp", "interim"): _NO_INTERIM,
    ("aiohttp", "trailers"): "drops trailers",
    ("aiohttp", "close reason"): "drops the reason in the answer to a close",
    ("fetch", "interim"): "drops 1xx",
    ("fetch", "trailers"): "drops trailers",
    ("fetch", "gzip"): "uncompresses what it gets",
}

# Connections that a client may make beyond those it needs, talking to a server directly as well.
# fetch: undici's pool opens a second before it has noticed that the first is free again.
SPARE_CONNECTS = {"fetch": 1}
