"""Files in and out of a real machine: a large one, with flat memory here; folders by `cp`."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyperfleet.client import Client
from support.server import Server

pytestmark = pytest.mark.vm

# The one of 1 GiB: HYPERFLEET_TEST_FILE_MIB=1024.
SIZE_MIB = int(os.environ.get("HYPERFLEET_TEST_FILE_MIB", "24"))
BLOCK = os.urandom(1 << 20)
# Beside what the server needs anyway: windows and buffers of one transfer.
GROWTH_KIB = 8 * 1024


@pytest.fixture(scope="module")
def machine(server: Server) -> Iterator[str]:
    server.create("web", mem_size_mib=160, rootfs_path=".hyperfleet/debian-rootfs.ext4")
    server.start_machine("web")
    yield "web"
    server.api.delete("/machines/web?force=true")


def peak(server: Server) -> int:
    """KiB, since it was last set back."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{server.pid}/status").read_text())
    assert found is not None
    return int(found[1])


def test_a_large_file_with_flat_memory(server: Server, machine: str) -> None:
    digest = hashlib.sha256()

    def blocks() -> Iterator[bytes]:
        for number in range(SIZE_MIB):
            # No two alike, so that none can be lost or doubled unseen.
            block = number.to_bytes(8, "big") + BLOCK[8:]
            digest.update(block)
            yield block

    with Client(server.api_url, server.key) as client:
        client.write_file(machine, "/root/warm-up", BLOCK)
        b"".join(client.read_file(machine, "/root/warm-up"))
        # clear_refs, 5: the peak is counted from now on (proc(5)).
        Path(f"/proc/{server.pid}/clear_refs").write_text("5")
        before = peak(server)
        began = time.monotonic()
        made = client.write_file(machine, "/root/big", blocks())
        up = SIZE_MIB / (time.monotonic() - began)
        assert made.size == SIZE_MIB << 20
        inside = server.sh(machine, "sha256sum < /root/big", timeout=600).split()[0]
        assert inside == digest.hexdigest()
        came = hashlib.sha256()
        began = time.monotonic()
        for piece in client.read_file(machine, "/root/big"):
            came.update(piece)
        down = SIZE_MIB / (time.monotonic() - began)
        assert came.digest() == digest.digest()
    grown = peak(server) - before
    print(f"{SIZE_MIB} MiB: in {up:.1f}, out {down:.1f} MiB/s; {grown} KiB more")  # noqa: T201
    assert grown < GROWTH_KIB


def test_a_folder_there_and_back(server: Server, machine: str, tmp_path: Path) -> None:
    app = tmp_path / "app"
    (app / "bin").mkdir(parents=True)
    (app / "bin/run").write_text("#!/bin/sh\necho it runs\n")
    (app / "bin/run").chmod(0o755)
    (app / "link").symlink_to("bin/run")
    server.run("cp", str(app), f"{machine}:/srv/app")
    assert server.sh(machine, "/srv/app/link") == "it runs\n"
    assert server.sh(machine, "stat -c '%a %u:%g' /srv/app/bin/run") == "755 0:0\n"
    server.sh(machine, "echo new > /srv/app/made; chmod 600 /srv/app/made")
    server.run("cp", f"{machine}:/srv/app", str(tmp_path / "back"))
    back = tmp_path / "back"
    assert (back / "link").readlink() == Path("bin/run")
    assert (back / "bin/run").stat().st_mode & 0o777 == 0o755
    assert (back / "made").read_text() == "new\n"
    assert (back / "made").stat().st_mode & 0o777 == 0o600


def test_nothing_is_left_of_an_upload_whose_client_goes(server: Server, machine: str) -> None:
    def breaks() -> Iterator[bytes]:
        yield BLOCK
        raise ConnectionError

    with Client(server.api_url, server.key) as client:
        with pytest.raises(ConnectionError):
            client.write_file(machine, "/root/half", breaks())
        left = [one.name for one in client.list_folder(machine, "/root").entries]
    assert "half" not in left
    assert not [name for name in left if name.startswith(".hyperfleet")]
