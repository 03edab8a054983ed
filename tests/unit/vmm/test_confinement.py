"""Users of machines, and what they are let into."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from hyperfleet.errors import GuestError, SetupError
from hyperfleet.machine import new_machine_id
from hyperfleet.vmm import confinement
from hyperfleet.vmm.confinement import FIRST_USER, USERS, User

WHOLE = "         0          0 4294967295\n"
ROOTLESS = "         0       1000          1\n         1     100000      65536\n"


@pytest.fixture
def as_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The file that says which users there are."""
    monkeypatch.setattr("os.geteuid", lambda: 0)
    id_map = tmp_path / "uid_map"
    id_map.write_text(WHOLE)
    monkeypatch.setattr(confinement, "_ID_MAP", id_map)
    return id_map


def test_a_machines_user_is_its_own_and_stays_so(as_root: Path) -> None:
    ids = [new_machine_id() for _ in range(100)]
    users = [confinement.user_of(one) for one in ids]
    assert users == [confinement.user_of(one) for one in ids]
    found = {user.uid for user in users if user is not None}
    # Two alike once in 27,000 runs.
    assert len(found) >= len(ids) - 1
    assert all(FIRST_USER <= uid < FIRST_USER + USERS for uid in found)


@pytest.mark.parametrize("text", [ROOTLESS, "", "nonsense\n"])
def test_without_such_users_there_is_none(as_root: Path, text: str) -> None:
    as_root.write_text(text)
    assert confinement.user_of("abc123def456") is None


def test_an_ordinary_user_has_none_to_give(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert confinement.user_of("abc123def456") is None


def test_what_stands_before_the_command(tmp_path: Path) -> None:
    disk = tmp_path / "disk.qcow2"
    disk.write_bytes(b"QFI\xfb" + bytes(20) + (1 << 30).to_bytes(8, "big") + bytes(100))
    program = tmp_path / "confine"
    largest = confinement.largest_file(disk)
    words = confinement.prefix(lambda: program, User(7, (8, 9)), largest)
    assert words[0] == str(program)
    assert words[-1] == "--"
    given = dict(zip(words[1:-1:2], words[2:-1:2], strict=True))
    assert given["--user"] == "7:7"
    assert [words[at + 1] for at, word in enumerate(words) if word == "--group"] == ["8", "9"]
    assert (1 << 30) < int(given["--file-size"]) < (1 << 30) * 1.3
    assert "--user" not in confinement.prefix(lambda: program, None, largest)
    disk.write_bytes(b"no disk")
    with pytest.raises(GuestError, match="no qcow2 image"):
        confinement.largest_file(disk)


def test_without_the_program_it_is_said_how_to_get_it(tmp_path: Path) -> None:
    def missing() -> Path:
        raise SetupError("run scripts/bootstrap")

    with pytest.raises(GuestError, match="run scripts/bootstrap"):
        confinement.prefix(missing, None, 1)


def test_a_closed_file_is_read_from_a_copy(tmp_path: Path) -> None:
    file = tmp_path / "kernel"
    file.write_bytes(b"kernel" * 1000)
    for mode, is_it in ((0o644, True), (0o600, False)):
        file.chmod(mode)
        descriptor = confinement.readable(file)
        try:
            named = Path(f"/proc/self/fd/{descriptor}")
            assert named.read_bytes() == file.read_bytes()
            assert (os.fstat(descriptor).st_ino == file.stat().st_ino) is is_it
            assert os.fstat(descriptor).st_mode & stat.S_IROTH
        finally:
            os.close(descriptor)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_folder_is_handed_over_and_no_link_is_followed(tmp_path: Path) -> None:
    folder = tmp_path / "machine"
    folder.mkdir(mode=0o700)
    (folder / "disk").write_bytes(b"disk")
    user = User(FIRST_USER + 1)
    for _ in range(2):
        confinement.hand_over(folder, ("disk", "console"), user)
    found = {path.name: path.stat() for path in (folder, *folder.iterdir())}
    assert {(name, one.st_uid, one.st_gid, one.st_mode & 0o777) for name, one in found.items()} == {
        ("machine", 0, user.uid, 0o710),
        ("disk", user.uid, user.uid, 0o600),
        ("console", user.uid, user.uid, 0o600),
    }
    assert (folder / "disk").read_bytes() == b"disk"
    (folder / "link").symlink_to("/etc/hostname")
    with pytest.raises(OSError, match="symbolic link"):
        confinement.hand_over(folder, ("link",), user)
