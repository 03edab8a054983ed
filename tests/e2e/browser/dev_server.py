"""A development server as a user starts it, on this host's loopback."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

from support.need import Need
from support.page import CHECKOUT, Page
from support.ports import free_port

# Seconds, as a guard.
PATIENCE = 60.0
DOCS = Page("docs/how-to/development-servers.md")
_APPS = Path(__file__).parent / "apps"
_PACKAGES = CHECKOUT / ".cache/node/node_modules"


def documented(mark: str, language: str = "js") -> str:
    """The example of the how-to that holds `mark`."""
    return DOCS.block_with(mark, language)


class DevServer:
    """A copy of one of `apps/` with `files` added, and the server that `command` starts in it.

    `command` is the documentation's, with the port `documented_port`; here it gets a free one.
    It is ready when it has printed `ready`. The context's end ends it and removes the copy.
    """

    def __init__(
        self,
        app: str,
        command: str,
        *,
        documented_port: int,
        ready: str,
        files: Mapping[str, str],
    ) -> None:
        self.port = free_port()
        # In the checkout, so that npm's packages can be linked and needn't be copied.
        scratch = CHECKOUT / ".cache/apps"
        scratch.mkdir(parents=True, exist_ok=True)
        self._scratch = tempfile.TemporaryDirectory(prefix=f"{app}-", dir=scratch)
        self.folder = Path(self._scratch.name)
        self._app = app
        self._files = files
        self._command = command.replace(f"--port {documented_port}", f"--port {self.port}")
        assert str(self.port) in self._command
        self._ready_word = ready
        # One for each time that the word was printed.
        self._ready = threading.Semaphore(0)
        self._output: list[str] = []
        self._ended = False

    def edit(self, file: str, old: str, new: str) -> None:
        """Changes a file in one step: a server that looks at once must not find it empty."""
        path = self.folder / file
        text = path.read_text()
        assert text.count(old) == 1
        changed = text.replace(old, new).encode()
        with path.open("r+b", buffering=0) as writer:
            assert writer.write(changed) == len(changed)
            writer.truncate()

    def restarts(self, act: Callable[[], None]) -> None:
        """Does what makes the server start again; returns when it is ready again."""
        act()
        self._await_ready()

    def __enter__(self) -> Self:
        shutil.copytree(_APPS / self._app, self.folder, dirs_exist_ok=True)
        for name, text in self._files.items():
            (self.folder / name).write_text(text)
        if (self.folder / "package.json").exists():
            shutil.copytree(
                _PACKAGES, self.folder / "node_modules", symlinks=True, copy_function=os.link
            )
        self._process = subprocess.Popen(
            ["sh", "-c", self._command],
            cwd=self.folder,
            env=_environment(self.folder),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        try:
            self._await_ready()
        except AssertionError:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        # The whole session: npx and uvicorn's reloader have children.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        self._scratch.cleanup()

    def _await_ready(self) -> None:
        alive = self._ready.acquire(timeout=PATIENCE) and not self._ended
        assert alive, f"{self._command}: {''.join(self._output)}"

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._output.append(line)
                if self._ready_word in line:
                    self._ready.release()
        # It has ended: nobody needs to wait on.
        self._ended = True
        self._ready.release()


class Site(NamedTuple):
    """A server behind the data plane; `address` is the browser's, with its last slash."""

    address: str
    server: DevServer


class Proxied(Protocol):
    """Puts a data plane before a server; `port` is that of its machine."""

    def __call__(
        self, server: DevServer, port: int, options: Mapping[str, Any] | None = None
    ) -> AbstractContextManager[Site]: ...


def port_options(mark: str) -> dict[str, Any]:
    """Those of the one port in the how-to's request that holds `mark`."""
    body = re.search(r"-d '(.*)'", documented(mark, "bash"))
    assert body is not None
    [options] = json.loads(body[1])["port_options"].values()
    return dict(options)


def need_node(need: Need) -> None:
    """What the servers of npm need."""
    need("npx")
    need.that(_PACKAGES.is_dir(), "npm's packages are missing: run scripts/bootstrap clients")


def _environment(folder: Path) -> dict[str, str]:
    """No colours, no calls home, and `uvicorn` is that of this Python."""
    return {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(folder),
        "NO_COLOR": "1",
        "npm_config_offline": "true",
        "npm_config_update_notifier": "false",
    }
