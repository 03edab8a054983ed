from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from hyperfleet.errors import ValidationError
from hyperfleet.images.locate import Images, command_for

EXT4 = bytes(1080) + b"\x53\xef" + bytes(1000)
ELF = b"\x7fELF" + bytes(2000)
BZIMAGE = bytes(0x202) + b"HdrS" + bytes(2000)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    (home / "disks").mkdir(parents=True)
    (home / "vmlinux").write_bytes(ELF)
    (home / "bzimage").write_bytes(BZIMAGE)
    (home / "initramfs.cpio").write_bytes(b"070701" + bytes(100))
    (home / "disks/debian-1.ext4").write_bytes(EXT4)
    (home / "debian-rootfs.ext4").symlink_to("disks/debian-1.ext4")
    (home / "rootfs.ext4").symlink_to("debian-rootfs.ext4")
    return home


def test_finds_what_is_in_the_home(home: Path) -> None:
    images = Images(home)
    assert images.kernel(str(home / "vmlinux")) == home / "vmlinux"
    assert images.kernel(str(home / "bzimage")) == home / "bzimage"
    assert images.initramfs() == home / "initramfs.cpio"


def test_gives_the_version_that_the_links_lead_to(home: Path) -> None:
    assert Images(home).root_disk(str(home / "rootfs.ext4")) == home / "disks/debian-1.ext4"


def test_relative_paths_start_at_the_working_directory(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home.parent)
    assert Images(Path("home")).kernel("home/vmlinux") == home / "vmlinux"


def test_image_dirs_count_and_a_home_behind_a_link_too(home: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mine.ext4").write_bytes(EXT4)
    (tmp_path / "link").symlink_to(home)
    images = Images(tmp_path / "link", [elsewhere])
    assert images.root_disk(str(elsewhere / "mine.ext4")) == elsewhere / "mine.ext4"
    assert images.kernel(str(tmp_path / "link/vmlinux")) == home / "vmlinux"


@pytest.mark.parametrize(
    "escape",
    [
        lambda home: str(home / "../outside.ext4"),
        lambda home: str(home / "link-out.ext4"),
        lambda home: f"{home}-next-door/disk.ext4",
        lambda _home: "/etc/passwd",
    ],
)
def test_what_lies_outside_is_refused(home: Path, escape: Callable[[Path], str]) -> None:
    (home.parent / "outside.ext4").write_bytes(EXT4)
    (home.parent / "home-next-door").mkdir()
    (home.parent / "home-next-door/disk.ext4").write_bytes(EXT4)
    (home / "link-out.ext4").symlink_to(home.parent / "outside.ext4")
    with pytest.raises(ValidationError, match=r"^rootfs_path: .*HYPERFLEET_IMAGE_DIRS"):
        Images(home).root_disk(escape(home))


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("alpine-rootfs.ext4", "hyperfleet setup --flavour alpine"),
        ("minimal-rootfs.ext4", "hyperfleet setup --flavour minimal"),
        ("other.ext4", "hyperfleet setup"),
    ],
)
def test_what_is_missing_gets_the_command_that_makes_it(
    home: Path, name: str, command: str
) -> None:
    with pytest.raises(ValidationError, match=f"^rootfs_path: .*{name} is not there; `{command}`"):
        Images(home).root_disk(str(home / name))
    assert command_for(name) == command


def test_a_missing_initramfs_gets_the_command(home: Path) -> None:
    (home / "initramfs.cpio").unlink()
    with pytest.raises(ValidationError, match=r"^initramfs: .*`hyperfleet setup`"):
        Images(home).initramfs()


def test_a_link_to_nothing_counts_as_missing(home: Path) -> None:
    (home / "disks/debian-1.ext4").unlink()
    with pytest.raises(ValidationError, match="not there; `hyperfleet setup --flavour debian`"):
        Images(home).root_disk(str(home / "debian-rootfs.ext4"))


def test_what_is_of_the_wrong_kind_is_refused(home: Path) -> None:
    images = Images(home)
    (home / "short").write_bytes(b"x")
    os.mkfifo(home / "fifo")
    for path in ("vmlinux", "short", "initramfs.cpio"):
        with pytest.raises(ValidationError, match=r"^rootfs_path: .*not a raw ext4"):
            images.root_disk(str(home / path))
    for path in ("rootfs.ext4", "short"):
        with pytest.raises(ValidationError, match=r"^kernel_image_path: .*not a Linux kernel"):
            images.kernel(str(home / path))
    for path in ("", "disks", "fifo"):
        with pytest.raises(ValidationError, match=r"^rootfs_path: .*not a regular file"):
            images.root_disk(str(home / path))


@pytest.mark.parametrize("path", ["", "a\0b"])
def test_what_is_no_path_is_refused(home: Path, path: str) -> None:
    with pytest.raises(ValidationError, match=r"^kernel_image_path: "):
        Images(home).kernel(path)


def test_a_loop_of_links_is_refused(home: Path) -> None:
    (home / "a").symlink_to("b")
    (home / "b").symlink_to("a")
    with pytest.raises(ValidationError, match=r"^rootfs_path: "):
        Images(home).root_disk(str(home / "a"))


def test_a_name_that_is_too_long_is_refused(home: Path) -> None:
    with pytest.raises(ValidationError, match=r"^rootfs_path: "):
        Images(home).root_disk(str(home / ("x" * 300)))
