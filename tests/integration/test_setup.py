"""`hyperfleet setup` with the host's real tools, and all that it needs from elsewhere made here."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import pytest
from rich.console import Console

from hyperfleet import binaries
from hyperfleet.errors import SetupError
from hyperfleet.images import alpine, command
from hyperfleet.images.alpine import Alpine
from hyperfleet.images.debian import Debian
from hyperfleet.images.disk import MIB, make_disk
from hyperfleet.images.locate import Images
from hyperfleet.images.minimal import Minimal
from hyperfleet.images.workshop import Workshop, open_workshop
from support.need import Need

PLAIN_KERNEL = b"\x7fELF Linux version 6.1.0-nowhere (someone) #1\0"
# Nobody listens on port 1 of the loopback.
NOWHERE = "https://127.0.0.1:1/alpine.tar.gz"


class Unreachable(Alpine):
    """Alpine as it is where its servers can't be reached."""

    def __init__(self, tarball: Path | None = None, *, timeout: float = 1.0) -> None:
        super().__init__(tarball, timeout=timeout, url=NOWHERE)


class NoDebian(Debian):
    """Debian as it is where mmdebstrap is not installed."""

    def __init__(self, _include: Sequence[str]) -> None:
        raise SetupError("mmdebstrap is not installed")


class Setup:
    """Runs set-up in a home of the test's, with a kernel and an agent of the test's."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.kernel = folder / "kernel"
        self.agent = folder / "agent"
        self.kernel.write_bytes(PLAIN_KERNEL)
        self.agent.write_bytes(b"agent 1")
        self.text = ""

    def __call__(
        self,
        *flavours: str,
        force: bool = False,
        prune: bool = False,
        alpine_tarball: Path | None = None,
    ) -> int:
        text = io.StringIO()
        code = command.setup(
            home=self.home,
            flavours=flavours,
            kernel=self.kernel,
            force=force,
            prune=prune,
            alpine_tarball=alpine_tarball,
            console=Console(file=text, width=200),
        )
        self.text = text.getvalue()
        return code

    def made(self) -> dict[str, int]:
        """The inode of each artefact: another one means that it was made again."""
        names = ("vmlinux", "initramfs.cpio", "minimal-rootfs.ext4")
        return {name: (self.home / name).stat().st_ino for name in names}


@pytest.fixture
def setup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, need: Need) -> Setup:
    for program in ("mke2fs", "debugfs", "busybox", "fakeroot"):
        need(program)
    setup = Setup(tmp_path)
    monkeypatch.setattr(binaries, "guest_agent", lambda: setup.agent)
    monkeypatch.setattr(command, "Alpine", Unreachable)
    return setup


def test_makes_all_that_a_machine_boots_from(setup: Setup, need: Need) -> None:
    assert setup("minimal") == 0, setup.text
    images = Images(setup.home)
    assert images.kernel(str(setup.home / "vmlinux")).read_bytes() == PLAIN_KERNEL
    disk = images.root_disk(str(setup.home / "rootfs.ext4"))
    assert disk == (setup.home / "minimal-rootfs.ext4").resolve()
    initramfs = images.initramfs().read_bytes()
    listing = subprocess.run(
        [need("cpio"), "-it"], input=initramfs, capture_output=True, check=True
    )
    assert listing.stdout.split() == [b"dev", b"dev/console", b"init", b"modules", b"modules/order"]
    assert b"agent 1" in initramfs


def test_does_nothing_the_second_time(setup: Setup) -> None:
    setup("minimal")
    before = setup.made()
    assert setup("minimal") == 0
    assert setup.made() == before
    assert "making" not in setup.text


def test_force_makes_everything_again_and_keeps_the_disk_that_machines_stand_on(
    setup: Setup,
) -> None:
    setup("minimal")
    before, disk = setup.made(), (setup.home / "rootfs.ext4").resolve()
    assert setup("minimal", force=True) == 0
    assert not before.items() & setup.made().items()
    assert disk.exists()
    assert disk.name in setup.text


def test_prune_removes_former_disks_that_nobody_stands_on(setup: Setup) -> None:
    former = []
    for _ in range(3):
        setup("minimal", force=True)
        former.append((setup.home / "rootfs.ext4").resolve())
    linked, named, unused = former
    setup("minimal", force=True)
    # A machine's link to it; and a snapshot's record, where there could be no link.
    for folder in ("machines/a", "snapshots/b"):
        (setup.home / folder).mkdir(parents=True)
    (setup.home / "machines/a/base.raw").hardlink_to(linked)
    (setup.home / "snapshots/b/base.json").write_text(f'{{"backing": "{named}"}}')
    assert setup("minimal", prune=True) == 0
    assert unused.name in setup.text
    assert (linked.exists(), named.exists(), unused.exists()) == (True, True, False)
    assert (setup.home / "rootfs.ext4").exists()
    assert setup("minimal", prune=True) == 0
    assert "removed" not in setup.text


def test_another_agent_makes_another_initramfs_and_nothing_else(setup: Setup) -> None:
    setup("minimal")
    before = setup.made()
    setup.agent.write_bytes(b"agent 2")
    setup("minimal")
    changed = {name for name, inode in setup.made().items() if before[name] != inode}
    assert changed == {"initramfs.cpio"}
    assert b"agent 2" in (setup.home / "initramfs.cpio").read_bytes()


def test_a_given_kernel_is_kept_and_followed(setup: Setup) -> None:
    setup("minimal")
    setup.kernel.write_bytes(PLAIN_KERNEL + b"newer")
    code = command.setup(home=setup.home, flavours=["minimal"], console=Console(file=io.StringIO()))
    assert code == 0
    assert (setup.home / "vmlinux").read_bytes().endswith(b"newer")


def test_what_can_not_be_had_is_left_out_unless_it_was_asked_for(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "Debian", NoDebian)
    assert setup() == 0
    assert "alpine-rootfs.ext4" in setup.text
    assert "left out: Alpine can't be downloaded here" in setup.text
    assert not (setup.home / "alpine-rootfs.ext4").exists()
    assert (setup.home / "rootfs.ext4").readlink() == Path("minimal-rootfs.ext4")

    assert setup("alpine") == 1
    assert "--alpine-tarball PATH" in setup.text
    assert setup("alpine", "minimal") == 1
    assert setup("all", "alpine") == 1


def test_a_flavour_that_there_is_not_is_refused(setup: Setup) -> None:
    assert setup("ubuntu") == 1
    assert "--flavour ubuntu: there are alpine, debian, minimal, all" in setup.text
    assert not setup.home.exists()


def test_a_missing_agent_does_not_keep_the_disks_from_being_made(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> Path:
        raise SetupError("it is not built: run `scripts/bootstrap binaries`")

    monkeypatch.setattr(binaries, "guest_agent", missing)
    assert setup("minimal") == 1
    assert "scripts/bootstrap binaries" in setup.text
    assert (setup.home / "minimal-rootfs.ext4").exists()


def test_ctrl_c_leaves_nothing_half_made(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    setup("minimal")
    before = setup.made()

    def interrupted(_self: Minimal, _workshop: Workshop, disk: Path) -> None:
        disk.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(Minimal, "make", interrupted)
    assert setup("minimal", force=True) == 130
    assert setup.made()["minimal-rootfs.ext4"] == before["minimal-rootfs.ext4"]
    assert not (setup.home / ".making").exists()


def test_a_users_own_default_disk_is_left_alone(setup: Setup) -> None:
    setup.home.mkdir()
    (setup.home / "rootfs.ext4").write_text("mine")
    assert setup("minimal") == 0
    assert (setup.home / "rootfs.ext4").read_text() == "mine"


def test_two_at_once_are_refused(setup: Setup) -> None:
    with open_workshop(setup.home):
        assert setup("minimal") == 1
    assert "another `hyperfleet setup`" in setup.text


def test_the_minimal_disk_has_what_tests_use(setup: Setup, need: Need) -> None:
    setup("minimal")
    disk = setup.home / "minimal-rootfs.ext4"
    programs = _debugfs(need, disk, "ls -p /bin").split("/")
    assert {"sh", "httpd", "nc", "wget", "busybox"} <= set(programs)
    assert "Mode:  0755" in _debugfs(need, disk, "stat /bin/busybox")
    assert "Mode:  01777" in _debugfs(need, disk, "stat /tmp")
    assert 'Fast link dest: "bin"' in _debugfs(need, disk, "stat /sbin")
    assert "localhost" in _debugfs(need, disk, "cat /etc/hosts")
    features = _debugfs(need, disk, "features")
    assert "has_journal" in features
    assert disk.stat().st_blocks * 512 < disk.stat().st_size == 64 * MIB


def test_a_strict_umask_is_the_users_and_not_the_machines(setup: Setup, need: Need) -> None:
    before = os.umask(0o077)
    try:
        assert setup("minimal") == 0
        assert os.umask(0o077) == 0o077
    finally:
        os.umask(before)
    disk = setup.home / "minimal-rootfs.ext4"
    assert disk.stat().st_mode & 0o777 == 0o600
    assert "Mode:  0755" in _debugfs(need, disk, "stat /var/www")
    assert "Mode:  0644" in _debugfs(need, disk, "stat /etc/hosts")


def test_alpine_is_made_of_its_own_tarball_only(
    setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, need: Need
) -> None:
    tarball = tmp_path / "minirootfs.tar.gz"
    _tarball(tarball, {"etc/alpine-release": b"3\n"})
    assert setup("alpine", alpine_tarball=tarball) == 1
    assert "is not Alpine's minirootfs" in setup.text
    assert not (setup.home / "alpine-rootfs.ext4").exists()

    class Pinned(Alpine):
        def __init__(self, given: Path | None = None, *, timeout: float = 1.0) -> None:
            digest = sha256(tarball.read_bytes()).hexdigest()
            super().__init__(given, timeout=timeout, url=NOWHERE, sha256=digest)

    monkeypatch.setattr(command, "Alpine", Pinned)
    assert setup("alpine", alpine_tarball=tarball) == 0, setup.text
    disk = setup.home / "alpine-rootfs.ext4"
    assert _debugfs(need, disk, "cat /etc/alpine-release") == "3\n"
    assert "localhost" in _debugfs(need, disk, "cat /etc/hosts")
    assert (setup.home / "rootfs.ext4").readlink() == Path("alpine-rootfs.ext4")
    # It is there now, and its tarball is not needed again.
    assert setup("alpine") == 0


def test_the_pinned_alpine_is_named_whole() -> None:
    assert alpine.URL.startswith("https://")
    assert alpine.VERSION in alpine.URL
    assert len(bytes.fromhex(alpine.SHA256)) == 32


@pytest.mark.parametrize("user", [0, 1000], ids=["as root", "under fakeroot"])
def test_a_disk_keeps_owners_and_modes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, need: Need, user: int
) -> None:
    for program in ("mke2fs", "fakeroot"):
        need(program)
    if user == 0 and not _is_root():
        pytest.skip("only root makes disks without fakeroot; the other case is this user's")
    monkeypatch.setattr("os.geteuid", lambda: user)
    tarball, work, disk = tmp_path / "base.tar.gz", tmp_path / "work", tmp_path / "disk.ext4"
    _tarball(tarball, {"etc/shadow": b"secret", "etc/hosts": b"old"}, owner=(1234, 42), mode=0o640)
    overlay = tmp_path / "overlay"
    (overlay / "etc").mkdir(parents=True)
    (overlay / "etc/hosts").write_text("new")
    work.mkdir()
    make_disk(disk, work=work, size=32 * MIB, label="test", overlay=overlay, base=tarball)
    shadow = _debugfs(need, disk, "stat /etc/shadow")
    assert "Mode:  0640" in shadow
    assert "User:  1234   Group:    42" in shadow
    hosts = _debugfs(need, disk, "stat /etc/hosts")
    assert "User:     0   Group:     0" in hosts
    assert _debugfs(need, disk, "cat /etc/hosts") == "new"
    assert list(work.iterdir()) == []


def test_a_disk_that_is_too_small_says_so(tmp_path: Path, need: Need) -> None:
    need("mke2fs")
    overlay, work = tmp_path / "overlay", tmp_path / "work"
    overlay.mkdir()
    work.mkdir()
    (overlay / "big").write_bytes(b"x" * 24 * MIB)
    with pytest.raises(SetupError, match="failed"):
        make_disk(tmp_path / "disk", work=work, size=16 * MIB, label="small", overlay=overlay)


def _is_root() -> bool:
    return Path("/proc/self").stat().st_uid == 0


def _tarball(
    path: Path,
    files: dict[str, bytes],
    owner: tuple[int, int] = (0, 0),
    mode: int = 0o644,
) -> None:
    with tarfile.open(path, "w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), mode
            member.uid, member.gid = owner
            tar.addfile(member, io.BytesIO(data))


def _debugfs(need: Need, disk: Path, request: str) -> str:
    """What debugfs(8) says of a disk, its own banner aside."""
    done = subprocess.run(
        [need("debugfs"), "-R", request, str(disk)], capture_output=True, check=True, text=True
    )
    return done.stdout
