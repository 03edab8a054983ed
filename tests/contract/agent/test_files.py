"""Files by the agent's own program: whole or not at all, and nothing that leaves its folder."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hyperfleet.errors import (
    ConflictError,
    GuestError,
    HyperfleetError,
    NotFoundError,
    ValidationError,
)
from hyperfleet.guest.agent import Agent
from hyperfleet.guest.files import Contents, Files
from hyperfleet.guest.values import ProcessRequest

from .conftest import Agents

BIG = os.urandom(1 << 20) * 3 + b"end"


@pytest.fixture
async def agent(agents: Agents) -> Agent:
    return await agents.connect()


@pytest.fixture
def files(agent: Agent) -> Files:
    async def run(request: ProcessRequest):
        return agent.run(request)

    return Files(run)


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def whole(contents: Contents) -> bytes:
    got = b"".join([piece async for piece in contents.pieces()])
    await contents.close()
    return got


def owned(folder: Path) -> None:
    """Gives all that is in it to whom it belongs: the agent's user."""
    found = folder.stat()
    for path in folder.rglob("*"):
        os.chown(path, found.st_uid, found.st_gid, follow_symlinks=False)


def names_in(folder: Path) -> set[str]:
    return {one.name for one in folder.iterdir()}


def owner_of(path: Path) -> tuple[int, int]:
    return path.stat().st_uid, path.stat().st_gid


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("content", [b"", b"hi\n", BIG], ids=["empty", "small", "big"])
async def test_in_and_out_again(files: Files, folder: Path, content: bytes) -> None:
    path = folder / "file"
    info = await files.put(str(path), pieces(content, b""), size=len(content))
    assert path.read_bytes() == content
    assert (info.name, info.kind, info.size or 0, info.mode) == (
        "file",
        "file",
        len(content),
        0o644,
    )
    contents = await files.get(str(path))
    assert contents.info == info == await files.stat(str(path))
    assert await whole(contents) == content
    assert names_in(folder) == {"agent", "file"}


async def test_what_is_there_keeps_its_mode_and_owner(files: Files, folder: Path) -> None:
    path, link = folder / "file", folder / "link"
    owner = owner_of(folder)
    await files.put(str(path), pieces(b"one"), mode=0o4750, owner=owner)
    assert mode_of(path) == 0o4750
    link.symlink_to("file")
    # Through the link, which stays one.
    info = await files.put(str(link), pieces(b"two"))
    assert (info.mode, (info.uid, info.gid)) == (0o4750, owner)
    assert link.is_symlink()
    assert path.read_bytes() == b"two"


async def test_a_file_that_does_not_come_whole_is_not_made(files: Files, folder: Path) -> None:
    path = folder / "file"
    path.write_bytes(b"before")

    async def breaks() -> AsyncIterator[bytes]:
        yield BIG
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await files.put(str(path), breaks())
    with pytest.raises(GuestError, match="did not come whole"):
        await files.put(str(path), pieces(b"abc"), size=4)
    assert path.read_bytes() == b"before"
    assert names_in(folder) == {"agent", "file"}


async def test_folders_on_the_way(files: Files, folder: Path) -> None:
    path = folder / "a/b/file"
    with pytest.raises(NotFoundError, match="a/b/file: "):
        await files.put(str(path), pieces(b"x"))
    await files.put(str(path), pieces(b"x"), parents=True)
    assert path.read_bytes() == b"x"


async def test_a_list(files: Files, folder: Path) -> None:
    (folder / "in").mkdir()
    for name in ("b", "a", "c\u00e9"):
        (folder / "in" / name).write_text(name)
    (folder / "in/link").symlink_to("nowhere")
    os.mkfifo(folder / "in/pipe")
    (folder / "in/sub").mkdir()
    (folder / "in" / os.fsdecode(b"\xff")).mkdir()
    listing = await files.list(str(folder / "in"))
    assert listing.folder.kind == "folder"
    assert not listing.truncated
    assert [(one.name, one.kind, one.target) for one in listing.entries] == [
        ("a", "file", None),
        ("b", "file", None),
        ("c\u00e9", "file", None),
        ("link", "link", "nowhere"),
        ("pipe", "other", None),
        ("sub", "folder", None),
        ("\N{REPLACEMENT CHARACTER}", "folder", None),
    ]
    assert listing.entries[2].size == 3


async def test_a_list_has_an_end(
    files: Files, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hyperfleet.guest.files.MOST_ENTRIES", 2)
    for name in ("a", "b", "c"):
        (folder / name).touch()
    listing = await files.list(str(folder))
    assert (len(listing.entries), listing.truncated) == (2, True)


async def test_the_kernels_files_have_no_size_before_they_are_read(files: Files) -> None:
    contents = await files.get("/proc/version")
    assert (contents.size, contents.info.size) == (None, None)
    assert (await whole(contents)).startswith(b"Linux version")


async def test_delete(files: Files, folder: Path) -> None:
    (folder / "full/sub").mkdir(parents=True)
    (folder / "full/file").touch()
    (folder / "link").symlink_to("full")
    owned(folder)
    await files.delete(str(folder / "link"), whole=True)
    assert (folder / "full/file").exists()
    with pytest.raises(ConflictError, match="full: "):
        await files.delete(str(folder / "full"), whole=False)
    await files.delete(str(folder / "full/sub"), whole=False)
    await files.delete(str(folder / "full"), whole=True)
    assert not (folder / "full").exists()
    with pytest.raises(NotFoundError):
        await files.delete(str(folder / "full"), whole=True)
    for root in ("/", "/..", f"{folder}/../../../../.."):
        with pytest.raises(ConflictError, match="root folder"):
            await files.delete(root, whole=True)


async def test_a_folder_as_a_tar_and_back(files: Files, folder: Path) -> None:
    here = folder / "here"
    (here / "sub/deep").mkdir(parents=True)
    (here / "sub/file").write_bytes(BIG)
    (here / "sub/file").chmod(0o751)
    (here / ("n" * 200)).write_text("a long name")
    (here / "link").symlink_to("/etc/passwd")
    os.mkfifo(here / "pipe")
    owned(folder)
    contents = await files.pack(str(here))
    assert contents.info.kind == "folder"
    tar = await whole(contents)
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        names = {member.name for member in archive}
    assert names == {"link", "n" * 200, "sub", "sub/deep", "sub/file"}

    there = folder / "new/there"
    await files.unpack(
        str(there), pieces(*(tar[at : at + 50_000] for at in range(0, len(tar), 50_000)))
    )
    assert (there / "sub/file").read_bytes() == BIG
    assert mode_of(there / "sub/file") == 0o751
    assert (there / "sub/deep").is_dir()
    assert (there / "link").readlink() == Path("/etc/passwd")
    # Again, over what is there.
    await files.unpack(str(there), pieces(tar))


def archive(*members: tuple[str, bytes | None, str]) -> bytes:
    """A tar of files (name, content) and links (name, None, target)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content, target in members:
            member = tarfile.TarInfo(name)
            member.uid, member.gid = os.getuid(), os.getgid()
            if content is None:
                member.type, member.linkname = tarfile.SYMTYPE, target
            else:
                member.size = len(content)
            tar.addfile(member, io.BytesIO(content or b""))
    return out.getvalue()


@pytest.mark.parametrize(
    "tar",
    [
        archive(("../outside", b"x", "")),
        archive(("a/../../outside", b"x", "")),
        archive(("link", None, ".."), ("link/outside", b"x", "")),
        b"no tar at all, " * 100,
        archive(("big", BIG, ""))[:1_000_000],
    ],
    ids=["up", "up from within", "by a link", "no tar", "cut short"],
)
async def test_a_tar_that_is_none_or_leaves_its_folder(
    files: Files, folder: Path, tar: bytes
) -> None:
    (folder / "in").mkdir()
    owned(folder)
    with pytest.raises(HyperfleetError):
        await files.unpack(str(folder / "in"), pieces(tar))
    assert not (folder / "outside").exists()


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/nowhere/at/all", NotFoundError),
        ("relative", ValidationError),
        ("/etc/passwd/x", ConflictError),
        ("/etc", ConflictError),
        ("/dev/null", ValidationError),
        (f"/{'x' * 300}", ValidationError),
    ],
)
async def test_what_can_not_be_read(files: Files, path: str, error: type[HyperfleetError]) -> None:
    with pytest.raises(error) as raised:
        await files.get(path)
    assert raised.value.message.startswith(f"{path}: ")
    if path != "/etc":
        with pytest.raises(HyperfleetError):
            await files.pack(path)


async def test_what_its_user_may_not(files: Files, folder: Path, agent_user: int | None) -> None:
    if agent_user is None:
        pytest.skip("root may")
    for act in (
        files.get("/etc/shadow"),
        files.put("/etc/hyperfleet-test", pieces(b"x")),
        files.delete("/etc/passwd", whole=False),
    ):
        with pytest.raises(GuestError, match=r"[Pp]ermission"):
            await act
