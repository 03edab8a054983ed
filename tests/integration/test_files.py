"""Files by the API, the SDK and `hyperfleet cp`, through the whole server; the machine is a fake.

What a real file system does: tests/contract/agent/test_files.py. A real machine, a large file:
tests/e2e/test_files.py.
"""

from __future__ import annotations

import io
import os
import socket
import subprocess
import tarfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from hyperfleet.cli import archive
from hyperfleet.client import ApiError, AsyncClient, Client
from support import page, proxy
from support.need import Need
from support.server import END, Server, hyperfleet
from support.zygote import Zygote

BIG = os.urandom(1 << 20) * 3 + b"end"


@pytest.fixture(scope="module")
def shared(need: Need, zygote: Zygote) -> Iterator[Server]:
    proxy.binary(need)
    with Server(
        zygote=zygote, HYPERFLEET_VMM="fake", HYPERFLEET_REQUEST_ARRIVAL_MS="1000"
    ) as running:
        running.create("web")
        running.start_machine("web")
        running.create("still")
        yield running


@pytest.fixture
def server(shared: Server) -> Server:
    shared.api.delete("/machines/web/files", params={"path": "/t", "recursive": "true"})
    return shared


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(server.api_url, server.key) as opened:
        yield opened


def test_bytes_in_and_out(server: Server) -> None:
    url = "/machines/web/files"
    put = server.api.put(url, params={"path": "/t/file"}, content=BIG)
    assert put.status_code == httpx.codes.OK
    assert put.json() == {
        "name": "file",
        "type": "file",
        "size": len(BIG),
        "mode": "0644",
        "owner": "0:0",
        "modified": 0,
        "target": None,
    }
    got = server.api.get(url, params={"path": "/t/file"})
    assert got.content == BIG
    told = {
        "Content-Type": "application/octet-stream",
        "Content-Length": str(len(BIG)),
        "X-File-Type": "file",
        "X-File-Mode": "0644",
        "X-File-Owner": "0:0",
        "Last-Modified": "Thu, 01 Jan 1970 00:00:00 GMT",
    }
    assert {name: got.headers[name] for name in told} == told
    head = server.api.head(url, params={"path": "/t/file"})
    assert (head.status_code, head.content) == (200, b"")
    assert {name: head.headers[name] for name in told} == told
    listed = server.api.get(url, params={"path": "/t"})
    assert listed.headers["X-File-Type"] == "folder"
    assert [entry["name"] for entry in listed.json()["entries"]] == ["file"]
    assert server.api.delete(url, params={"path": "/t/file"}).status_code == 204
    gone = server.api.get(url, params={"path": "/t/file"})
    assert gone.status_code == 404
    assert gone.json()["error"]["message"].startswith("/t/file: No such file")


@pytest.mark.parametrize(
    ("method", "machine", "query", "status", "words"),
    [
        ("GET", "web", {}, 400, "path is required"),
        ("GET", "web", {"path": "t"}, 400, "begins with /"),
        ("GET", "web", {"path": "/x", "archive": "1"}, 400, "archive must be true or false"),
        ("GET", "nobody", {"path": "/x"}, 404, "Machine not found"),
        ("GET", "still", {"path": "/x"}, 409, "start it first"),
        ("PUT", "web", {"path": "/"}, 409, "/: it is a folder"),
        ("PUT", "web", {"path": "/x", "mode": "9"}, 400, "mode must be"),
        ("PUT", "web", {"path": "/x", "owner": "me"}, 400, "owner must be"),
        ("PUT", "web", {"path": "/x", "archive": "true", "mode": "0644"}, 400, "leave them out"),
        ("DELETE", "web", {"path": "/", "recursive": "true"}, 409, "root folder"),
    ],
)
def test_what_is_asked_wrongly(
    server: Server, method: str, machine: str, query: dict[str, str], status: int, words: str
) -> None:
    content = b"x" * 100_000 if method == "PUT" else None
    answer = server.api.request(method, f"/machines/{machine}/files", params=query, content=content)
    assert (answer.status_code, words in answer.json()["error"]["message"]) == (status, True)


def test_an_upload_that_breaks_off_or_stalls_makes_nothing(server: Server) -> None:
    head = (
        f"PUT /machines/web/files?path=/t/half HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n"
        f"Authorization: Bearer {server.key}\r\n\r\n"
    ).encode()
    with socket.create_connection(("127.0.0.1", server.api_port)) as client:
        client.sendall(head + b"half")
    with socket.create_connection(("127.0.0.1", server.api_port)) as client:
        client.sendall(head + b"half")
        client.settimeout(END)
        answer = b"".join(iter(lambda: client.recv(1 << 16), b""))
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"Nothing of the body came for 1 s" in answer
    assert server.api.get("/machines/web/files?path=/t/half").status_code == 404


def test_by_the_sdk(client: Client) -> None:
    made = client.write_file("web", "/t/a/file", iter([b"he", b"llo"]), parents=True)
    assert (made.name, made.size) == ("file", 5)
    assert b"".join(client.read_file("web", "/t/a/file")) == b"hello"
    assert client.stat_file("web", "/t/a/file") == made
    assert client.stat_file("web", "/t/a").type == "folder"
    assert client.list_folder("web", "/t").entries[0].name == "a"
    tar = b"".join(client.pack_folder("web", "/t"))
    with tarfile.open(fileobj=io.BytesIO(tar)) as opened:
        assert opened.getnames() == ["a/file"]
    assert client.unpack_folder("web", "/t/b", tar).type == "folder"
    assert b"".join(client.read_file("web", "/t/b/a/file")) == b"hello"
    with pytest.raises(ApiError, match="not empty"):
        client.delete_file("web", "/t/b")
    client.delete_file("web", "/t/b", recursive=True)
    for act in (
        lambda: client.stat_file("web", "/t/b"),
        lambda: next(client.read_file("web", "/t/b")),
        lambda: client.delete_file("web", "/t/b"),
    ):
        with pytest.raises(ApiError, match="No such file"):
            act()


async def test_with_asyncio(server: Server) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"he"
        yield b"llo"

    async with AsyncClient(server.api_url, server.key) as client:
        await client.write_file("web", "/t/file", pieces())
        got = [piece async for piece in client.read_file("web", "/t/file")]
        assert b"".join(got) == b"hello"
        assert (await client.stat_file("web", "/t/file")).size == 5
        with pytest.raises(ApiError, match="No such file"):
            await client.stat_file("web", "/t/none")
        tar = [piece async for piece in client.pack_folder("web", "/t")]
        await client.unpack_folder("web", "/t/b", b"".join(tar))
        assert len((await client.list_folder("web", "/t")).entries) == 2
        await client.delete_file("web", "/t", recursive=True)


def copied(
    server: Server, *arguments: str, stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    with server.popen(
        "cp",
        *arguments,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        out, errors = process.communicate(stdin, timeout=END)
    return subprocess.CompletedProcess(arguments, process.returncode, out, errors)


def copies(server: Server, *arguments: str, stdin: bytes = b"") -> bytes:
    done = copied(server, *arguments, stdin=stdin)
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout


def test_cp_of_files(server: Server, tmp_path: Path) -> None:
    here = tmp_path / "file"
    here.write_bytes(BIG)
    copies(server, str(here), "web:/t/")
    copies(server, "web:/t/file", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == BIG
    copies(server, "web:/t/file", f"{tmp_path}/new/")
    assert (tmp_path / "new/file").read_bytes() == BIG
    copies(server, "-", "web:/t/typed", stdin=b"typed")
    assert copies(server, "web:/t/typed", "-") == b"typed"
    missing = copied(server, "web:/t/none", str(tmp_path / "none"))
    assert (missing.returncode, missing.stdout) == (1, b"")
    assert missing.stderr.startswith(b"hyperfleet: /t/none: No such file")
    assert {path.name for path in tmp_path.iterdir()} == {"file", "back", "new"}


def test_cp_of_folders(server: Server, tmp_path: Path) -> None:
    (tmp_path / "app/src").mkdir(parents=True)
    (tmp_path / "app/src/main").write_bytes(BIG)
    (tmp_path / "app/empty").write_bytes(b"")
    copies(server, str(tmp_path / "app"), "web:/t/site")
    # It is there by now, so this one goes into it.
    copies(server, f"{tmp_path}/app", "web:/t/site")
    copies(server, "web:/t/site", str(tmp_path / "back"))
    found = {str(path.relative_to(tmp_path / "back")) for path in (tmp_path / "back").rglob("*")}
    inside = {"src", "src/main", "empty"}
    assert found == inside | {f"app/{name}" for name in inside} | {"app"}
    assert (tmp_path / "back/app/src/main").read_bytes() == BIG


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("a", "b"), "one of the two must be MACHINE:PATH"),
        (("web:/a", "web:/b"), "one of the two must be MACHINE:PATH"),
        (("web:a", "b"), "begins with /"),
        (("nowhere", "web:/b"), "nowhere: No such file or directory"),
    ],
)
def test_cp_of_what_can_not_be(server: Server, arguments: tuple[str, str], words: str) -> None:
    done = copied(server, *arguments)
    assert done.returncode == 2
    assert words in " ".join(done.stderr.decode().replace("│", "").split())


def test_the_page(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """docs/reference/files.md, its commands and its example, as they stand."""
    docs = page.Page("docs/reference/files.md")
    (server.folder / "index.html").write_text("hi")
    (server.folder / "app").mkdir()
    (server.folder / "app/file").write_text("hi")
    with Client(server.api_url, server.key) as client:
        client.write_file("web", "/etc/os-release", b"ID=debian\n")
    path = server.environment["PATH"]
    server.environment["PATH"] += f":{Path(hyperfleet()[0]).parent}"
    assert page.types(server, docs.block_with("hyperfleet cp")) == ["ID=debian\n"]
    server.environment["PATH"] = path
    assert (server.folder / "copy/file").read_text() == "hi"
    example = docs.block_with("write_file", "python")
    exec(example, {"url": server.api_url, "key": server.key})  # noqa: S102 - our own page
    assert capsys.readouterr().out.splitlines() == ["b'hello'", "app folder None", "hello file 5"]


def tar_of(*members: tarfile.TarInfo) -> list[bytes]:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(bytes(member.size)))
    return [out.getvalue()]


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.mode = kind, link, 0o4755
    made.size = 3 if kind == tarfile.REGTYPE else 0
    return made


@pytest.mark.parametrize(
    "members",
    [
        (member("/outside"),),
        (member("../outside"),),
        (member("a/../../outside"),),
        (member("link", tarfile.SYMTYPE, ".."), member("link/outside")),
        (member("link", tarfile.SYMTYPE, ".."), member("link", tarfile.DIRTYPE)),
        (member("hard", tarfile.LNKTYPE, "/etc/passwd"),),
        (member("null", tarfile.CHRTYPE),),
    ],
)
def test_a_machine_can_not_write_outside_of_what_it_was_given(
    tmp_path: Path, members: tuple[tarfile.TarInfo, ...]
) -> None:
    with pytest.raises(archive.UnsafeArchiveError):
        archive.unpack(tmp_path / "in", tar_of(*members), owners=False)
    assert {path.name for path in tmp_path.iterdir()} == {"in"}


def test_a_link_is_replaced_and_nothing_is_setuid(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    target = tmp_path / "target"
    target.write_text("mine")
    tar = tar_of(member("x", tarfile.SYMTYPE, str(target)), member("x"))
    archive.unpack(folder, tar, owners=False)
    assert target.read_text() == "mine"
    assert (folder / "x").read_bytes() == bytes(3)
    assert (folder / "x").stat().st_mode & 0o7777 == 0o755


def test_a_folder_of_ours_as_a_tar(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / ("n" * 150)).write_bytes(BIG)
    (folder / "sub/link").symlink_to("..")
    (folder / "a").hardlink_to(folder / "sub" / ("n" * 150))
    os.mkfifo(folder / "pipe")
    archive.unpack(tmp_path / "back", archive.pack(folder, owners=True), owners=True)
    back = tmp_path / "back"
    assert (back / "a").read_bytes() == (back / "sub" / ("n" * 150)).read_bytes() == BIG
    assert (back / "sub/link").readlink() == Path("..")
    assert not (back / "pipe").exists()
