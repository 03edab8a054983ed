"""Pages for whoever runs a host: every command on them is run as it stands.

What of the host is the test's own, `support.reader_host` says. The pages of the service and of the
wheel are in tests/e2e/test_production_page.py.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import httpx
import pytest

from hyperfleet.settings import load
from support import plain, proxy
from support.need import Need
from support.netns import own_network, run, taps
from support.page import Page
from support.reader_host import ReaderHost
from support.server import Server
from support.zygote import Zygote

# Seconds, as a guard.
PATIENCE = 60.0


@pytest.fixture
def server(need: Need, zygote: Zygote) -> Iterator[Server]:
    """Not started; its folder is a reader's clone."""
    proxy.binary(need)
    made = Server(zygote=zygote, HYPERFLEET_VMM="fake")
    (made.folder / ".venv").symlink_to(sys.prefix)
    yield made
    made.close()


@pytest.fixture
def reader(server: Server) -> ReaderHost:
    return reader_of(server)


def reader_of(server: Server) -> ReaderHost:
    made = ReaderHost(server.folder, server.environment)
    server.environment = made.environment
    return made


ACCESS_LOG = Page("docs/how-to/access-log.md")


@pytest.fixture(scope="module")
def running(need: Need, zygote: Zygote) -> Iterator[tuple[Server, ReaderHost]]:
    """One that has an access log, as its page says."""
    proxy.binary(need)
    with closing(Server(zygote=zygote, HYPERFLEET_VMM="fake")) as made:
        reader = reader_of(made)
        folder, _ = ACCESS_LOG.blocks()
        reader.types(folder, made.folder)
        [setting] = ACCESS_LOG.blocks("ini")
        name, _, path = setting.strip().partition("=")
        made.environment[name] = str(reader.place(path))
        yield made.start(), reader


def serves(server: Server, reader: ReaderHost, block: str) -> subprocess.Popen[bytes]:
    """Runs a block that ends in `hyperfleet serve`; its process, when it is ready."""
    log = server.folder / "page.log"
    process = reader.begins(block, server.folder, log)
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if plain.get(f"{server.api_url}/ready").is_success:
                return process
        except httpx.TransportError:
            time.sleep(0.05)
    raise AssertionError(log.read_text())


def ends(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) == 0


def test_backup(server: Server, reader: ReaderHost) -> None:
    copying, restoring = Page("docs/how-to/backup.md").blocks()
    server.start()
    server.create("before")
    said = reader.types(copying, server.folder)
    copy = reader.home / "backups/hyperfleet-2030-01-31.db"
    assert said == f"The record is in {copy}. Disks of machines are not part of it.\n"
    server.create("after")
    server.stop()
    process = serves(server, reader, restoring)
    names = [machine["name"] for machine in server.api.get("/machines").json()["machines"]]
    assert names == ["before"]
    ends(process)


def test_upgrade(server: Server, reader: ReaderHost) -> None:
    """Two versions: tests/e2e/test_production_page.py. Here it is the settings that differ."""
    install, serve, look = Page("docs/how-to/upgrade.md").blocks()
    server.start()
    server.create("web", exposed_ports=[80])
    server.start_machine("web")
    reader.types(install, server.folder)
    assert (server.folder / "before-the-upgrade.db").exists()
    server.stop()
    old = reader.types(look.splitlines()[0], server.folder)
    reader.environment["PROXY_MAX_MACHINE_REQUESTS"] = "4095"
    process = serves(server, reader, serve)
    *_, newest = reader.types(look, server.folder).splitlines()
    assert "another process has taken over" in (server.home / "proxy.log").read_text()
    assert newest.startswith("hyperfleet-proxy listens on ")
    assert server.api.get("/machines/web").json()["status"] in ("running", "failed")
    assert reader.types(look.splitlines()[0], server.folder) != old
    ends(process)


def test_access_log(running: tuple[Server, ReaderHost], need: Need) -> None:
    need("jq")
    server, reader = running
    _, select = ACCESS_LOG.blocks()
    documented = load(dict([ACCESS_LOG.blocks("ini")[0].strip().split("=")]), None)
    path = str(documented.settings.proxy_access_log)
    log = reader.place(path)
    assert plain.get(f"{server.proxy_url}/proxy/nobody/80/").status_code == 404

    def lines() -> list[str]:
        deadline = time.monotonic() + PATIENCE
        while not (found := log.read_text().splitlines()):
            assert time.monotonic() < deadline
        return found

    [line] = lines()
    [example] = ACCESS_LOG.blocks("json")
    assert [*json.loads(line)] == [*json.loads(example)]
    selected = reader.types(f"cd {log.parent}\n{select}", server.folder)
    when = json.loads(line)["time"]
    assert json.loads(selected) == [when, "machine_not_found", "nobody", 80, "/proxy/nobody/80/"]
    # What logrotate is told: it copies and cuts (logrotate(8)), and the proxy goes on at the start.
    [rotation] = ACCESS_LOG.blocks("logrotate")
    assert rotation.startswith(f"{path} {{\n")
    assert "copytruncate" in rotation
    shutil.copy(log, f"{log}.1")
    os.truncate(log, 0)
    assert plain.get(f"{server.proxy_url}/proxy/nobody/81/").status_code == 404
    [line] = lines()
    assert json.loads(line)["port"] == 81


def test_privileges(running: tuple[Server, ReaderHost]) -> None:
    server, reader = running
    [block] = Page("docs/reference/privileges.md").blocks()
    said = dict(line.split(":\t") for line in reader.types(block, server.folder).splitlines())
    assert said["NoNewPrivs"] == "1"
    assert said["Seccomp"] == "2"
    assert {said[name] for name in said if name.startswith("Cap")} == {"0" * 16}
    if os.geteuid() == 0:
        assert "0" not in said["Uid"].split()
        assert said["Groups"].split() == []


@pytest.mark.parametrize("path", ["how-to/networks-user.md", "how-to/networks-tap.md"])
def test_packages_of_networks(running: tuple[Server, ReaderHost], need: Need, path: str) -> None:
    need("apt-get")
    server, reader = running
    reader.types(Page(f"docs/{path}").block_with("apt-get"), server.folder)


@taps
def test_taps(reader: ReaderHost, server: Server, need: Need) -> None:
    """Who reaches whom: tests/e2e/tap."""
    need("nft")
    with own_network():
        run("ip", "link", "add", "out0", "type", "veth", "peer", "name", "in0")
        run("ip", "address", "add", "192.0.2.1/24", "dev", "out0")
        del reader.environment["HYPERFLEET_VMM"]
        process = serves(server, reader, Page("docs/how-to/networks-tap.md").block_with("serve"))
        # Nobody is to start it, so the beginnings will do: of a kernel and of ext4.
        (server.home / "vmlinux").write_bytes(b"\x7fELF")
        (server.home / "disk").write_bytes(bytes(1024 + 56) + b"\x53\xef")
        answer = server.api.post(
            "/machines",
            json={
                "name": "web",
                "vcpu_count": 1,
                "mem_size_mib": 128,
                "rootfs_path": ".hyperfleet/disk",
            },
        )
        assert answer.is_success, answer.text
        assert answer.json()["network"]["mode"] == "tap"
        ends(process)


def test_events(running: tuple[Server, ReaderHost]) -> None:
    server, reader = running
    block = Page("docs/reference/events.md").block_with("curl -N")
    reader.environment["HYPERFLEET_API_KEY"] = server.key
    here = block.replace("127.0.0.1:3000", f"127.0.0.1:{server.api_port}")
    log = server.folder / "events"
    with reader.begins(here, server.folder, log) as curl:
        guard = threading.Timer(PATIENCE, curl.kill)
        guard.start()
        # What comes first is the id of what was before; an event is one that came after it.
        while "\nid: " not in log.read_text():
            assert curl.poll() is None, log.read_text()
        server.create("web")
        while "\nevent: created\n" not in log.read_text():
            assert curl.poll() is None, log.read_text()
        curl.kill()
        guard.cancel()
