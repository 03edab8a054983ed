"""`hyperfleet serve` as a user starts it: a process, a home folder, ports of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import httpx

from support import plain
from support.ports import free_port
from support.zygote import Forked, Zygote

# Seconds; generous, for a loaded machine without KVM.
READY = 60.0
END = 60.0


class Server:
    """A control plane with its data plane in a folder of its own; removes all at the end.

    `home` is `.hyperfleet` in `folder`, the server's working directory, as in the documentation.
    """

    def __init__(
        self,
        *,
        images: Path | None = None,
        within: Path | None = None,
        zygote: Zygote | None = None,
        templates: Path | None = None,
        **environment: str,
    ) -> None:
        """`images`: a home whose artefacts its own has too. `within`: where `folder` is made.

        `zygote`: what starts it, instead of the command. `templates`: see `support.templates`;
        without, its first machine of a shape boots.
        """
        # Short, since sockets lie in it (sun_path holds 107 bytes).
        self.folder = Path(tempfile.mkdtemp(prefix="hf-", dir=within))
        self.home = self.folder / ".hyperfleet"
        self.home.mkdir()
        self.api_port = free_port()
        self.proxy_port = free_port()
        self.log = self.folder / "serve.log"
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": os.environ.get("HOME", "/"),
            "PORT": str(self.api_port),
            "PROXY_PORT": str(self.proxy_port),
            "PROXY_EXPOSED_PORT_POLL_INTERVAL_MS": "1000",
            **environment,
        }
        if images is not None:
            for artefact in images.iterdir():
                if (
                    artefact.is_file()
                    and artefact.suffix in (".ext4", ".cpio", "")
                    and not (artefact.name.startswith(("api-key", "lock")))
                ):
                    (self.home / artefact.name).symlink_to(artefact.resolve())
            self.environment["HYPERFLEET_IMAGE_DIRS"] = str(images)
        if templates is not None:
            link_templates(templates, self.home)
        self._zygote = zygote
        self._process: subprocess.Popen[bytes] | Forked | None = None
        self._client: httpx.Client | None = None
        self._lock = threading.Lock()

    @property
    def api_url(self) -> str:
        return f"http://127.0.0.1:{self.api_port}"

    @property
    def proxy_url(self) -> str:
        return f"http://127.0.0.1:{self.proxy_port}"

    @property
    def key(self) -> str:
        return (self.home / "api-key").read_text().strip()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def api(self) -> httpx.Client:
        """A client with the server's first key; threads share it."""
        with self._lock:
            if self._client is None:
                self._client = httpx.Client(
                    base_url=self.api_url,
                    headers={"Authorization": f"Bearer {self.key}"},
                    verify=plain.NOBODY,
                    timeout=300,
                )
        return self._client

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs `hyperfleet ARGUMENTS…` in this server's folder and environment."""
        return subprocess.run(
            [*hyperfleet(), *arguments],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=END,
            check=check,
        )

    def popen(self, *arguments: str, **streams: Any) -> subprocess.Popen[bytes]:
        """Starts `hyperfleet ARGUMENTS…` where `run` does; `streams` as for `subprocess.Popen`."""
        return subprocess.Popen(
            [*hyperfleet(), *arguments], cwd=self.folder, env=self.environment, **streams
        )

    def start(self, ready: float = READY) -> Self:
        """Starts it and waits until it is ready, `ready` seconds at most."""
        with self.log.open("ab") as log:
            if self._zygote is not None:
                self._process = self._zygote.serve(self.folder, self.environment, log.fileno())
            else:
                self._process = self.popen(
                    "serve",
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
        deadline = time.monotonic() + ready
        while time.monotonic() < deadline and self._process.poll() is None:
            with contextlib.suppress(httpx.TransportError):
                if plain.get(f"{self.api_url}/ready", timeout=5).status_code == httpx.codes.OK:
                    return self
            time.sleep(0.05)
        ended = self._process.poll()
        state = "runs on" if ended is None else f"ended with {ended}"
        raise AssertionError(f"the server did not get ready, and {state}:\n{self.log.read_text()}")

    def stop(self) -> int:
        """SIGTERM; its exit status."""
        return self._end(signal.SIGTERM)

    def kill(self) -> int:
        """SIGKILL, as a crash would; its exit status."""
        return self._end(signal.SIGKILL)

    def wait(self) -> int:
        """Waits until it has ended by itself; its exit status."""
        if self._client is not None:
            self._client.close()
            self._client = None
        assert self._process is not None
        return self._process.wait(END)

    def _end(self, number: int) -> int:
        if self._client is not None:
            self._client.close()
            self._client = None
        assert self._process is not None
        self._process.send_signal(number)
        return self._process.wait(END)

    def create(self, name: str, **fields: Any) -> dict[str, Any]:
        """A machine; small and minimal unless told otherwise."""
        answer = self.api.post("/machines", json=asked(name, **fields))
        assert answer.status_code == httpx.codes.CREATED, answer.text
        machine: dict[str, Any] = answer.json()
        return machine

    def last_event(self) -> str:
        """The id after which every event comes that has not happened yet."""
        with self.api.stream("GET", "/events") as answer:
            lines = answer.iter_lines()
            return next(line.removeprefix("id: ") for line in lines if line.startswith("id: "))

    def start_machine(self, ref: str) -> dict[str, Any]:
        answer = self.api.post(f"/machines/{ref}/start")
        assert answer.status_code == httpx.codes.OK, answer.text
        machine: dict[str, Any] = answer.json()
        return machine

    def exec(self, ref: str, *command: str, **fields: Any) -> dict[str, Any]:
        """Runs a command in a machine; its answer, whatever its exit code."""
        answer = self.api.post(f"/machines/{ref}/exec", json={"cmd": list(command), **fields})
        assert answer.status_code == httpx.codes.OK, answer.text
        result: dict[str, Any] = answer.json()
        return result

    def sh(self, ref: str, script: str, **fields: Any) -> str:
        """Runs a shell script in a machine, which must succeed; its standard output."""
        result = self.exec(ref, "sh", "-c", script, **fields)
        assert result["exit_code"] == 0, result
        output: str = result["stdout"]
        return output

    def machine_processes(self) -> list[str]:
        """The command lines of QEMU machines; a template may be made behind a start."""
        lines = [line for line in self.processes() if "qemu-system" in line]
        return [line for line in lines if "hyperfleet-template-" not in line]

    def processes(self) -> list[str]:
        """Command lines of what it started: whatever names its folder or runs in it."""
        own = self._process.pid if self._process is not None else None
        return [line for pid, line in processes_in(self.folder) if pid != own]

    def close(self) -> None:
        """Ends everything that was started here and removes the folder."""
        if self._client is not None:
            self._client.close()
        if self._process is not None and self._process.poll() is None:
            self._end(signal.SIGTERM)
        # Data planes and machines outlive the control plane by design.
        kill_all_in(self.folder)
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        """Starts it; one that does not get ready is closed."""
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *_: object) -> None:
        self.close()


def asked(name: str, **fields: Any) -> dict[str, Any]:
    """The body that asks for a machine; small and minimal unless told otherwise."""
    return {
        "name": name,
        "vcpu_count": 1,
        "mem_size_mib": 128,
        "rootfs_path": ".hyperfleet/minimal-rootfs.ext4",
        **fields,
    }


def hyperfleet() -> Sequence[str]:
    """The command of this environment's installation."""
    return [str(Path(sys.executable).parent / "hyperfleet")]


def link_artefacts(images: Path, home: Path) -> None:
    """Gives a home all that `hyperfleet setup` has made in another, so that it finds it made."""
    kept = ("machines", "snapshots", "data", "templates")
    for path in sorted(images.rglob("*")):
        place = home / path.relative_to(images)
        if path.relative_to(images).parts[0] in kept or path.name in ("lock", "api-key"):
            continue
        if path.is_symlink():
            place.symlink_to(path.readlink())
        elif path.is_dir():
            place.mkdir()
        elif path.suffix in (".ext4", ".cpio", ".recipe", "") or path.parent != images:
            place.symlink_to(path)


def link_templates(templates: Path, home: Path) -> None:
    """Gives the templates of a folder to a home on the same file system; its server is to come."""
    for template in templates.iterdir():
        place = home / "templates" / template.name
        place.mkdir(mode=0o700, parents=True)
        for file in template.iterdir():
            # They are never written to.
            os.link(file, place / file.name)


def kill_all_in(folder: Path) -> None:
    """Ends every process that names the folder, or runs in it; returns when there is none."""
    deadline = time.monotonic() + END
    while there := list(processes_in(folder)):
        assert time.monotonic() < deadline, f"these do not end: {there}"
        for pid, _ in there:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        # One that is ending is there for a moment more, and may have started another.
        time.sleep(0.005)


def processes_in(folder: Path) -> Iterator[tuple[int, str]]:
    """Processes that name the folder in their command line, or run in it: pid and command line."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                line = (
                    (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                )
                directory = (entry / "cwd").readlink()
                if str(folder) in line or directory.is_relative_to(folder):
                    yield int(entry.name), line.strip()
