"""Whether a proxy does the job that all are measured at."""

from __future__ import annotations

import http.client
import time

from benchmarks.peers import HOST, MACHINE, PREFIX, Peer

_NAME = "bench.test:4000"
# Requests sent to see whether connections to the upstream are kept.
_REQUESTS = 20
# Seconds for a proxy to know its routes.
_ROUTES_LIMIT = 10.0


def check(peer: Peer, port: int) -> None:
    """Asks for a request's head as the upstream saw it, and for how it came there.

    Raises:
        RuntimeError: the proxy does another job than the others.
    """
    if not peer.prefix:
        return
    connection = http.client.HTTPConnection(HOST, port, timeout=10)
    try:
        wrong = faults(_first(connection, f"{PREFIX}/head"))
        first = int(_get(connection, f"{PREFIX}/connections"))
        for _ in range(_REQUESTS):
            last = int(_get(connection, f"{PREFIX}/connections"))
        if last - first > 1:
            wrong.append(f"{last - first} connections to the upstream for {_REQUESTS} requests")
    finally:
        connection.close()
    if wrong:
        msg = f"{peer.title} does another job: {'; '.join(wrong)}"
        raise RuntimeError(msg)


def faults(head: str) -> list[str]:
    """What is wrong with a head that the upstream got."""
    line, *lines = head.strip().split("\r\n")
    pairs = [text.partition(":") for text in lines]
    fields = {name.lower(): value.strip() for name, _, value in pairs}
    wanted = {
        "host": _NAME,
        "x-forwarded-host": _NAME,
        "x-forwarded-proto": "http",
        "x-forwarded-prefix": PREFIX,
        "x-machine-id": MACHINE,
    }
    wrong = [] if line == "GET /head HTTP/1.1" else [f"request line {line!r}"]
    if not fields.get("x-forwarded-for"):
        # Whichever address: for a loopback peer Envoy writes one of the host's own.
        wrong.append("no x-forwarded-for")
    return wrong + [
        f"{name}: {fields.get(name)!r} instead of {value!r}"
        for name, value in wanted.items()
        if fields.get(name) != value
    ]


def _first(connection: http.client.HTTPConnection, path: str) -> str:
    """As `_get`, of a proxy that may listen before it knows its routes, as Traefik does."""
    limit = time.monotonic() + _ROUTES_LIMIT
    while True:
        try:
            return _get(connection, path)
        except RuntimeError:
            if time.monotonic() > limit:
                raise
        # Nothing tells when a server of somebody else's has read its routes.
        time.sleep(0.05)


def _get(connection: http.client.HTTPConnection, path: str) -> str:
    connection.request("GET", path, headers={"Host": _NAME})
    response = connection.getresponse()
    body = response.read().decode()
    if response.status != http.client.OK:
        msg = f"GET {path}: {response.status} {body[:200]!r}"
        raise RuntimeError(msg)
    return body
