"""docs/how-to/production.md: the API behind nginx, with what has no end and what is large."""

from __future__ import annotations

import asyncio
import os
import ssl
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from hyperfleet.client import (
    AsyncProcessStream,
    Client,
    Event,
    Missed,
    ProcessStream,
    UntrustedError,
)
from support import proxy
from support.need import Need
from support.nginx import nginx
from support.page import Page
from support.ports import free_port
from support.server import Server
from support.zygote import Zygote

LIMIT = 30
# nginx takes 1 MiB, and keeps it back, unless it is told otherwise.
BIG = os.urandom(5 << 20)


@pytest.fixture
def server(need: Need, zygote: Zygote) -> Iterator[Server]:
    proxy.binary(need)
    with Server(zygote=zygote, HYPERFLEET_VMM="fake") as running:
        yield running


@pytest.fixture
def certificate(need: Need, tmp_path: Path) -> Path:
    """One that no authority has signed, for 127.0.0.1; its key lies beside it, as `key.pem`."""
    made, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    kind = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1")
    names = ("-subj", "/CN=hyperfleet", "-addext", "subjectAltName=IP:127.0.0.1")
    files = ("-keyout", key, "-out", made)
    subprocess.run(
        [need("openssl"), "req", "-x509", *kind, *names, *files], check=True, capture_output=True
    )
    return made


@pytest.fixture
def url(server: Server, certificate: Path, tmp_path: Path, need: Need) -> Iterator[str]:
    """As the page has it, but for its ports and files."""
    port = free_port()
    filled = Page("docs/how-to/production.md").block_with("proxy_pass", "nginx")
    for theirs, ours in (
        ("listen 443 ssl;", f"listen 127.0.0.1:{port} ssl;"),
        ("/path/to/cert.pem", str(certificate)),
        ("/path/to/key.pem", str(certificate.with_name("key.pem"))),
        ("http://localhost:3000", server.api_url),
    ):
        assert filled.count(theirs) == 1
        filled = filled.replace(theirs, ours)
    with nginx(need("nginx"), tmp_path, filled, port):
        yield f"https://127.0.0.1:{port}"


def test_the_api_behind_nginx(
    server: Server, url: str, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with Client(url, server.key) as client, ThreadPoolExecutor() as pool:
        machine = client.create_machine(name="web", vcpu_count=1, mem_size_mib=128)
        client.change_machine("web", labels={"a": "b"})
        # It is told when it happens, although the stream has no end: nothing is kept back.
        events = client.follow_events(machine="web", after=_before_all(url, server.key))
        assert [_kind(next(events)) for _ in range(2)] == ["created", "changed"]
        coming = pool.submit(next, events)
        client.start_machine(machine.id)
        assert _kind(coming.result(LIMIT)) == "status"
        client.write_file("web", "/big", BIG)
        assert b"".join(client.read_file("web", "/big")) == BIG
        with ProcessStream(url, server.key, "web", ["cat"]) as process:
            process.write(b"through")
            process.end_input()
            assert b"".join(output.data for output in process) == b"through"


async def test_whose_certificate_is_not_known_is_not_believed(
    server: Server, url: str, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = (
        f"{url} shows a certificate that is not trusted here: self-signed certificate; "
        "set SSL_CERT_FILE to a file with its authority's certificate (PEM)"
    )
    server.environment["HYPERFLEET_URL"] = url
    with Client(url, server.key) as client, pytest.raises(UntrustedError) as refused:
        client.list_machines()
    assert str(refused.value) == told
    with pytest.raises(UntrustedError, match="is not trusted here"):
        ProcessStream(url, server.key, "web", ["true"])
    with pytest.raises(UntrustedError, match="is not trusted here"):
        await AsyncProcessStream.open(url, server.key, "web", ["true"])
    by_hand = await asyncio.to_thread(server.run, "list", check=False)
    assert (by_hand.returncode, by_hand.stdout) == (3, "")
    assert by_hand.stderr == f"hyperfleet: {told}\n"

    server.environment["SSL_CERT_FILE"] = str(certificate)
    by_hand = await asyncio.to_thread(server.run, "list", check=False)
    assert by_hand.returncode == 0, by_hand.stderr
    # What is known for another name is not believed either, and no file would help.
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    elsewhere = url.replace("127.0.0.1", "localhost")
    with Client(elsewhere, server.key) as client, pytest.raises(UntrustedError) as refused:
        client.list_machines()
    assert "not valid for 'localhost'" in str(refused.value)
    assert "SSL_CERT_FILE" not in str(refused.value)


def _before_all(url: str, key: str) -> str:
    """The id of what was before the first event."""
    headers = {"Authorization": f"Bearer {key}"}
    verify = ssl.create_default_context()
    with httpx.stream(
        "GET", f"{url}/events", headers=headers, timeout=LIMIT, verify=verify
    ) as answer:
        last = next(line for line in answer.iter_lines() if line.startswith("id: "))
    return f"{last.removeprefix('id: ').partition('-')[0]}-0"


def _kind(event: Event | Missed) -> str:
    assert isinstance(event, Event)
    return event.type
