"""docs/how-to/production.md and install.md: installed from a wheel, upgraded, put back.

Every command is run as it stands; `support.reader_host` has what of the host is the test's own,
`support.service_manager` what stands in for systemd. Requests to a real machine go on meanwhile.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from hyperfleet import __version__
from support import plain
from support.need import Need
from support.page import CHECKOUT, Page
from support.ports import free_port
from support.reader_host import ReaderHost
from support.server import kill_all_in, link_artefacts
from support.service_manager import ServiceManager
from support.wheel import as_version, dependencies

pytestmark = pytest.mark.vm

INSTALLING = Page("docs/how-to/install.md")
PAGE = Page("docs/how-to/production.md")
SERVICE = "hyperfleet.service"
# The page's next version.
NEXT = "0.2.0"
# Seconds, as a guard.
PATIENCE = 120.0


class Host(NamedTuple):
    """Where a reader is: a host, its clone, and what its server is told that a reader's is not."""

    reader: ReaderHost
    clone: Path
    settings: dict[str, str]

    @property
    def api(self) -> str:
        return f"http://127.0.0.1:{self.settings['PORT']}"

    @property
    def page(self) -> str:
        return f"http://127.0.0.1:{self.settings['PROXY_PORT']}/proxy/web/80/"


@pytest.fixture(scope="module")
def host(images: Path, wheel: Path, need: Need) -> Iterator[Host]:
    for program in ("apt-get", "pgrep", "prlimit"):
        need(program)
    root = Path(tempfile.mkdtemp(prefix="hf-"))
    clone = root / "clone"
    (clone / "dist").mkdir(parents=True)
    (root / "dependencies").mkdir()
    as_version(Path(shutil.copy(wheel, clone / "dist")), NEXT)
    (clone / "packaging").symlink_to(CHECKOUT / "packaging")
    settings = {
        "PORT": str(free_port()),
        "PROXY_PORT": str(free_port()),
        # Where what is linked below lies.
        "HYPERFLEET_IMAGE_DIRS": str(images),
    }
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(dependencies(root / "dependencies")),
        "PIP_NO_INDEX": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        # Set-up asks for Alpine's disk, which the internet has.
        "https_proxy": "http://127.0.0.1:1",
        **settings,
    }
    with ReaderHost(root, environment) as reader:
        # One environment for Python serves both pages, the user's and the service's.
        reader.home = reader.place("/opt/hyperfleet").parent
        reader.environment["HOME"] = str(reader.home)
        for home in (reader.home / "machines", reader.place("/var/lib/hyperfleet")):
            (home / ".hyperfleet").mkdir(parents=True)
            link_artefacts(images, home / ".hyperfleet")
        yield Host(reader, clone, settings)
    kill_all_in(root)
    shutil.rmtree(root)


def test_by_any_user(host: Host) -> None:
    fresh, tools, *_ = (block for block in INSTALLING.blocks() if "apt-get" in block)
    for block in (fresh, tools, *(b for b in INSTALLING.blocks() if b.startswith("make "))):
        host.reader.types(block, host.clone)
    block = INSTALLING.block_with("/bin/hyperfleet serve")
    assert f"hyperfleet-{__version__}-" in block
    log = host.reader.root / "serve.log"
    server = host.reader.begins(block, host.clone, log)
    until_ready(host, server, log)
    assert f"Hyperfleet {__version__}\n" in log.read_text()
    server.send_signal(signal.SIGINT)
    assert server.wait(PATIENCE) == 0, log.read_text()


@pytest.fixture(scope="module")
def manager(host: Host) -> Iterator[ServiceManager]:
    """The service as the page installs it."""
    reader = host.reader
    settings = reader.place("/etc/hyperfleet.env")
    settings.write_text("".join(f"{name}={value}\n" for name, value in host.settings.items()))
    bare = {name: reader.environment[name] for name in ("PATH", "PYTHONPATH")}
    made = ServiceManager(reader.root, reader.rooted, bare)
    reader.managed_by(made)
    block = PAGE.block_with("python3 -m venv")
    assert f"hyperfleet-{__version__}-" in block
    reader.types(block, host.clone)
    yield made
    down = "cd /var/lib/hyperfleet && /opt/hyperfleet/bin/hyperfleet down"
    reader.types(down, host.clone)
    made.close()
    assert reader.types("pgrep qemu-system-x86 || true", host.clone) == ""


def test_an_upgrade_and_a_way_back_without_a_lost_request(
    host: Host, manager: ServiceManager
) -> None:
    reader = host.reader
    assert manager.timers == {"hyperfleet-backup.timer"}
    key = reader.place("/var/lib/hyperfleet/.hyperfleet/api-key").read_text().strip()
    with httpx.Client(
        base_url=host.api, headers={"Authorization": f"Bearer {key}"}, timeout=PATIENCE
    ) as api:
        web = a_machine(api, "web")
        assert "web" in reader.types(PAGE.block_with("hyperfleet list"), host.clone)
        with ExitStack() as opened, requests_going_on(host.page):
            (old,) = (os.pidfd_open(pid) for pid in data_planes(host))
            opened.callback(os.close, old)
            server = manager.main_pid(SERVICE)
            reader.types(PAGE.block_with(f"hyperfleet-{NEXT}-"), host.clone)
            assert manager.main_pid(SERVICE) != server
            assert f"Hyperfleet {NEXT}\n" in manager.log.read_text()
            # The old one ends when it has answered what it had.
            ended, _, _ = select.select([old], [], [], PATIENCE)
            assert ended
        assert len(data_planes(host)) == 1

        assert api.post("/keys", json={"name": "later", "scopes": ["machines:read"]}).is_success
        with requests_going_on(host.page):
            reader.types(PAGE.block_with("hyperfleet restore"), host.clone)
        assert [one["name"] for one in api.get("/keys").json()["keys"]] == ["first"]
        found = api.get("/machines/web").json()
        assert {name: found[name] for name in ("status", "pid")} == web
    copy = reader.place(f"/var/backups/hyperfleet-before-{NEXT}.db")
    assert copy.stat().st_mode & 0o777 == 0o600


def a_machine(api: httpx.Client, name: str) -> dict[str, object]:
    """One that serves a page; its status and its process."""
    spec = {"name": name, "vcpu_count": 1, "mem_size_mib": 128, "exposed_ports": [80]}
    spec["rootfs_path"] = ".hyperfleet/minimal-rootfs.ext4"
    assert api.post("/machines", json=spec).is_success
    started = api.post(f"/machines/{name}/start")
    assert started.is_success, started.text
    script = "mkdir -p /www && echo hello > /www/index.html && httpd -p 80 -h /www"
    ran = api.post(f"/machines/{name}/exec", json={"cmd": ["sh", "-c", script]}).json()
    assert ran["exit_code"] == 0, ran
    return {one: started.json()[one] for one in ("status", "pid")}


@contextmanager
def requests_going_on(url: str) -> Iterator[None]:
    """Two clients, one of which keeps its connection; every request must have the page."""
    over = threading.Event()
    counts = [0, 0]

    def client(number: int) -> None:
        # Without certificates, whose loading takes longer than all of the rest.
        with httpx.Client(verify=False, timeout=PATIENCE) as kept:  # noqa: S501
            # Without a pause they would take the CPU from what they are to be disturbed by.
            while not over.wait(0.02):
                headers = {"Connection": "close"} if number % 2 else {}
                answer = kept.get(url, headers=headers)
                assert (answer.status_code, answer.text) == (200, "hello\n")
                counts[number] += 1

    with ThreadPoolExecutor() as pool:
        clients: list[Future[None]] = [pool.submit(client, number) for number in range(len(counts))]
        try:
            asked(clients, counts)
            yield
            asked(clients, counts)
        finally:
            over.set()
        for one in clients:
            one.result()


def asked(clients: list[Future[None]], counts: list[int]) -> None:
    """Returns when each client has had five more answers; raises what one of them did."""
    wanted = [count + 5 for count in counts]
    while any(count < least for count, least in zip(counts, wanted, strict=True)):
        for one in clients:
            if one.done():
                one.result()
        time.sleep(0.01)


def data_planes(host: Host) -> list[int]:
    return [*map(int, host.reader.types("pgrep hyperfleet-prox", host.clone).split())]


def until_ready(host: Host, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and server.poll() is None:
        try:
            if plain.get(f"{host.api}/ready").is_success:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    raise AssertionError(log.read_text())
