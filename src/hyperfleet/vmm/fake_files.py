"""A fake guest's files, as the agent's own program treats real ones (`wire.files`).

Its disk is a dict of files; a folder is there when something in it is.
"""

from __future__ import annotations

import io
import posixpath
import tarfile
from collections.abc import Sequence

from hyperfleet.wire import files as wire
from hyperfleet.wire import guest, length

_MODE = 0o644
_FOLDER_MODE = 0o755
# Of any of its file systems.
_SIZE = 1 << 30


class _RefusedError(Exception):
    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def perform(files: dict[str, bytes], arguments: Sequence[str], stdin: bytes) -> tuple[bytes, int]:
    """What the program prints, and its exit code."""
    out = io.BytesIO()
    try:
        what, path, *rest = arguments
        _Disk(files, out).do(what, posixpath.normpath(path), rest, stdin)
    except _RefusedError as refusal:
        _say(out, wire.Refused(code=refusal.code, message=str(refusal)))
        return out.getvalue(), 1
    return out.getvalue(), 0


class _Disk:
    def __init__(self, files: dict[str, bytes], out: io.BytesIO) -> None:
        self._files = files
        self._out = out

    def do(self, what: str, path: str, rest: Sequence[str], stdin: bytes) -> None:
        match what:
            case "get":
                self._must_be_file(path)
                _say(self._out, self._entry(path))
                self._out.write(self._files[path])
            case "put" | "put-in":
                self._put(path, stdin, size=rest[0])
            case "stat":
                _say(self._out, self._entry(path))
            case "usage":
                used = sum(len(self._files[name]) for name in self._files if _is_in(name, path))
                _say(self._out, wire.Usage(size=_SIZE, used=used))
            case "list":
                self._list(path, int(rest[0]))
            case "delete" | "delete-all":
                self._delete(path, whole=what == "delete-all")
            case "pack":
                self._must_be_folder(path)
                _say(self._out, self._entry(path))
                self._pack(path)
            case _:
                self._unpack(path, stdin)

    def _put(self, path: str, content: bytes, *, size: str) -> None:
        if self._is_folder(path):
            raise _RefusedError("is_folder", "it is a folder")
        if size not in ("-", str(len(content))):
            raise _RefusedError("failed", "it did not come whole")
        self._files[path] = content
        _say(self._out, self._entry(path))

    def _list(self, path: str, most: int) -> None:
        self._must_be_folder(path)
        _say(self._out, self._entry(path))
        names = sorted({name.partition("/")[0] for name in self._inside(path)})
        for name in names[:most]:
            _say(self._out, self._entry(posixpath.join(path, name)))
        _say(self._out, wire.Done(truncated=len(names) > most))

    def _delete(self, path: str, *, whole: bool) -> None:
        if path == "/":
            raise _RefusedError("busy", "it is the root folder")
        self._entry(path)
        if self._is_folder(path) and not whole:
            raise _RefusedError("not_empty", "Directory not empty")
        for name in [name for name in self._files if f"{name}/".startswith(f"{path}/")]:
            del self._files[name]
        _say(self._out, wire.Done(truncated=False))

    def _pack(self, path: str) -> None:
        with tarfile.open(fileobj=self._out, mode="w|") as tar:
            for name in sorted(self._inside(path)):
                member = tarfile.TarInfo(name)
                content = self._files[posixpath.join(path, name)]
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))

    def _unpack(self, path: str, content: bytes) -> None:
        try:
            with tarfile.open(fileobj=io.BytesIO(content)) as tar:
                for member in tar:
                    name = posixpath.normpath(posixpath.join(path, member.name))
                    if not name.startswith(f"{path.rstrip('/')}/"):
                        raise _RefusedError("invalid", f"{member.name} leads out of the folder")
                    if (file := tar.extractfile(member)) is not None:
                        self._files[name] = file.read()
        except tarfile.TarError as error:
            raise _RefusedError("failed", str(error)) from error
        _say(self._out, wire.Done(truncated=False))

    def _inside(self, path: str) -> list[str]:
        start = f"{path.rstrip('/')}/"
        return [name.removeprefix(start) for name in self._files if name.startswith(start)]

    def _is_folder(self, path: str) -> bool:
        return path == "/" or bool(self._inside(path))

    def _must_be_folder(self, path: str) -> None:
        self._entry(path)
        if not self._is_folder(path):
            raise _RefusedError("not_folder", "it is no folder")

    def _must_be_file(self, path: str) -> None:
        self._entry(path)
        if self._is_folder(path):
            raise _RefusedError("is_folder", "it is a folder")

    def _entry(self, path: str) -> wire.Entry:
        folder = self._is_folder(path)
        if not folder and path not in self._files:
            raise _RefusedError("not_found", "No such file or directory")
        return wire.Entry(
            name=posixpath.basename(path),
            kind=wire.Kind.FOLDER if folder else wire.Kind.FILE,
            size=None if folder else len(self._files[path]),
            mode=_FOLDER_MODE if folder else _MODE,
            uid=0,
            gid=0,
            mtime=0,
        )


def _is_in(name: str, folder: str) -> bool:
    return name.startswith(f"{folder.rstrip('/')}/")


def _say(out: io.BytesIO, message: wire.FileMessage) -> None:
    out.write(length.frame(guest.encode(message)))
