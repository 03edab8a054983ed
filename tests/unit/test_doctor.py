from __future__ import annotations

import io
import json
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from hyperfleet import doctor
from hyperfleet.doctor import Check, Verdict
from hyperfleet.network.tap_host import Lack
from hyperfleet.vmm import cgroup_base, cgroup_tree, kvm
from hyperfleet.vmm.cgroup_base import CONTROLLERS as ALL
from hyperfleet.vmm.cgroup_base import Base, Sight
from support.ports import free_port


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    host: str = "127.0.0.1"
    port: int
    proxy_bind: str = "127.0.0.1"
    proxy_port: int
    hyperfleet_home: Path
    hyperfleet_kernel_image_path: str
    hyperfleet_rootfs_path: str
    hyperfleet_image_dirs: Sequence[Path] = ()
    hyperfleet_network: str = "auto"
    hyperfleet_network_restrict: bool = False
    hyperfleet_cgroups: str = "auto"
    hyperfleet_cgroup_io_max: str | None = None
    hyperfleet_dns: Sequence[str] = ()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        port=free_port(),
        proxy_port=free_port(),
        hyperfleet_home=tmp_path / "not/yet",
        hyperfleet_kernel_image_path=str(tmp_path / "not/yet/vmlinux"),
        hyperfleet_rootfs_path=str(tmp_path / "not/yet/rootfs.ext4"),
    )


@pytest.fixture
def no_kvm(monkeypatch: pytest.MonkeyPatch) -> None:
    verdict = kvm.KvmVerdict(usable=False, reason="there is no /dev/kvm")
    monkeypatch.setattr(kvm, "probe", lambda: verdict)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH with nothing on it but what the test plants."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


@pytest.mark.usefixtures("no_kvm")
def test_without_kvm_machines_still_run(settings: Settings) -> None:
    check = looked_at(settings)["KVM"]
    assert check.verdict is Verdict.WARN
    assert check.what == "there is no /dev/kvm; machines run under TCG"
    assert check.mend is not None


@pytest.mark.parametrize(
    ("sight", "verdict", "what"),
    [
        (Sight(Base(Path("/g")), ALL, ()), Verdict.OK, "limits of cpu, memory, io, pids under /g"),
        (
            Sight(Base(Path("/g")), ("memory", "pids"), ("cpu", "io")),
            Verdict.WARN,
            "limits of memory, pids under /g; missing: cpu, io",
        ),
        (
            Sight(None, (), ALL, "no cgroup2 is mounted here", "boot it so"),
            Verdict.WARN,
            "machines have no limits: no cgroup2 is mounted here",
        ),
    ],
)
@pytest.mark.usefixtures("no_kvm")
def test_what_machines_can_be_held_to(
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    sight: Sight,
    verdict: Verdict,
    what: str,
) -> None:
    monkeypatch.setattr(cgroup_base, "look", lambda: sight)
    check = looked_at(settings)["cgroups"]
    assert (check.verdict, check.what) == (verdict, what)
    assert (check.mend is None) == (verdict is Verdict.OK)
    off = msgspec.structs.replace(settings, hyperfleet_cgroups="off")
    assert looked_at(off)["cgroups"].verdict is Verdict.OK


@pytest.mark.usefixtures("no_kvm")
def test_a_limit_for_a_home_on_no_disk_is_told(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cgroup_base, "look", lambda: Sight(Base(Path("/g")), ALL, ()))
    monkeypatch.setattr(cgroup_tree, "disk_of", lambda place: None)
    asked = msgspec.structs.replace(settings, hyperfleet_cgroup_io_max="rbps=1")
    check = looked_at(asked)["cgroups"]
    assert check.verdict is Verdict.WARN
    assert "lies on no disk" in check.what


@pytest.mark.usefixtures("no_kvm")
def test_each_missing_artefact_has_the_command_that_makes_it(settings: Settings) -> None:
    checks = looked_at(settings)
    for name in ("kernel", "initramfs", "root disk"):
        assert checks[name].verdict is Verdict.BAD
        assert checks[name].mend == "hyperfleet setup"


@pytest.mark.usefixtures("no_kvm")
def test_artefacts_that_are_there_are_shown(settings: Settings) -> None:
    home = settings.hyperfleet_home
    home.mkdir(parents=True)
    (home / "vmlinux").write_bytes(b"\x7fELF")
    (home / "initramfs.cpio").write_bytes(b"070701")
    (home / "rootfs.ext4").write_bytes(bytes(1080) + b"\x53\xef")
    checks = looked_at(settings)
    assert checks["kernel"] == Check(name="kernel", verdict=Verdict.OK, what=f"{home}/vmlinux")
    assert checks["initramfs"].verdict is checks["root disk"].verdict is Verdict.OK


@pytest.mark.usefixtures("no_kvm", "programs")
def test_missing_programs_have_the_line_that_installs_them(settings: Settings) -> None:
    checks = looked_at(settings)
    assert checks["QEMU"].verdict is Verdict.BAD
    assert checks["QEMU"].mend == "sudo apt-get install qemu-system-x86"
    assert checks["qemu-img"].verdict is Verdict.BAD
    assert checks["mmdebstrap"].verdict in (Verdict.WARN, Verdict.OK)


@pytest.mark.usefixtures("no_kvm")
@pytest.mark.parametrize(
    ("version", "machines", "verdict", "what"),
    [
        ("7.2.22 (Debian)", "microvm  microvm (i386)", Verdict.OK, "version 7.2.22, with microvm"),
        ("4.2.1", "microvm  microvm (i386)", Verdict.BAD, "version 4.2.1 is older than 5.2"),
        ("7.2.22", "q35  Standard PC", Verdict.BAD, "version 7.2.22 has no machine type microvm"),
        ("", "", Verdict.BAD, "qemu-system-x86_64 does not run"),
    ],
)
def test_qemu_is_asked_for_its_version_and_machines(
    settings: Settings, programs: Path, version: str, machines: str, verdict: Verdict, what: str
) -> None:
    qemu = programs / "qemu-system-x86_64"
    first = f"QEMU emulator version {version}" if version else ""
    qemu.write_text(
        f'#!/bin/sh\nif [ "$1" = --version ]; then echo "{first}"; else echo "{machines}"; fi\n'
    )
    qemu.chmod(0o755)
    check = looked_at(settings)["QEMU"]
    assert check.verdict is verdict
    assert check.what.endswith(what)


@pytest.mark.usefixtures("no_kvm")
def test_a_port_that_a_stranger_holds_is_bad(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", settings.proxy_port)):
        checks = looked_at(settings)
    assert checks["PORT"].verdict is Verdict.OK
    assert checks["PROXY_PORT"].verdict is Verdict.BAD
    assert "PROXY_PORT" in str(checks["PROXY_PORT"].mend)


@pytest.mark.usefixtures("no_kvm")
def test_ports_that_our_own_server_holds_are_fine(settings: Settings) -> None:
    with health(settings.port), socket.create_server(("127.0.0.1", settings.proxy_port)):
        checks = looked_at(settings)
    assert checks["PORT"].verdict is checks["PROXY_PORT"].verdict is Verdict.OK
    assert "held by Hyperfleet" in checks["PORT"].what


@pytest.mark.usefixtures("no_kvm")
def test_tap_is_bad_only_where_it_is_asked_for_and_not_possible(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    check = looked_at(settings)["tap network"]
    assert check.verdict is Verdict.OK
    assert "not asked for" in check.what
    tap = msgspec.structs.replace(settings, hyperfleet_network="tap")
    lacks = [check for check in doctor.run(tap) if check.name == "tap network"]
    assert all(check.verdict is Verdict.BAD for check in lacks)
    assert "root" in lacks[0].what
    assert "HYPERFLEET_NETWORK=user" in str(lacks[0].mend)


@pytest.mark.usefixtures("no_kvm")
def test_the_way_out_without_root_is_passts(settings: Settings, programs: Path) -> None:
    check = looked_at(settings)["user network"]
    assert (check.verdict, check.mend) == (Verdict.WARN, "sudo apt-get install passt")
    restricted = msgspec.structs.replace(settings, hyperfleet_network_restrict=True)
    assert looked_at(restricted)["user network"].verdict is Verdict.OK
    passt = programs / "passt"
    passt.touch(mode=0o755)
    check = looked_at(settings)["user network"]
    assert (check.verdict, check.what) == (Verdict.OK, f"possible by {passt}")


@pytest.mark.usefixtures("no_kvm", "programs")
def test_tap_needs_nft(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hyperfleet.network.nft._SBIN", "")
    tap = msgspec.structs.replace(settings, hyperfleet_network="tap")
    mends = [check.mend for check in doctor.run(tap) if check.name == "tap network"]
    assert "sudo apt-get install nftables" in mends


@pytest.mark.usefixtures("no_kvm")
def test_where_tap_is_possible_it_says_what_is_in_its_way(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped = Lack("another firewall drops what guests send out", "let it through")
    monkeypatch.setattr("hyperfleet.network.tap_host.lacks", list)
    monkeypatch.setattr("hyperfleet.network.tap_host.hindrances", lambda: [dropped])
    monkeypatch.setattr("hyperfleet.doctor.resolvers", tuple)
    for network, verdict in (("tap", Verdict.WARN), ("user", Verdict.OK)):
        asked = msgspec.structs.replace(settings, hyperfleet_network=network)
        possible, hindered = [one for one in doctor.run(asked) if one.name == "tap network"]
        assert possible.verdict is Verdict.OK
        assert possible.what.startswith("possible")
        assert (hindered.verdict, hindered.mend) == (verdict, "let it through")
        names = looked_at(asked)["names by tap"]
        assert (names.verdict, names.mend) == (verdict, "set HYPERFLEET_DNS")
    told = msgspec.structs.replace(asked, hyperfleet_dns=("192.0.2.53",))
    assert "names by tap" not in looked_at(told)


def test_the_report_fails_only_for_what_is_bad() -> None:
    good = Check(name="a [b]", verdict=Verdict.OK, what="fine")
    worse = Check(name="KVM", verdict=Verdict.WARN, what="slow", mend="turn it on")
    bad = Check(name="QEMU", verdict=Verdict.BAD, what="missing", mend="apt-get install it")
    text = io.StringIO()
    console = Console(file=text, width=200)
    assert doctor.report([good, worse], console) == 0
    assert doctor.report([good, bad], console) == 1
    for words in ("a [b]", "turn it on", "apt-get install it"):
        assert words in text.getvalue()


def looked_at(settings: Settings) -> dict[str, Check]:
    return {check.name: check for check in doctor.run(settings)}


@contextmanager
def health(port: int) -> Iterator[None]:
    """A server that answers /health as ours does."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"status": "ok"}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            """Tests are quiet."""

    with HTTPServer(("127.0.0.1", port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
