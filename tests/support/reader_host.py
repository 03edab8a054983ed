"""The host of somebody who types what a page says: what of it is a test's own, in one place.

Commands run as they stand, by bash. What they meet that is not as on a reader's host is this, and
nothing else:

- /opt, /var and /etc, where a command names them, lie in a root folder of the test's own, and so do
  the home folder (by HOME) and the ports (by the settings);
- the programs of `STAND_INS` come first on the PATH: what only root, only systemd or only a host
  with the internet could do is checked as far as it can be.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

from support.page import CHECKOUT

# What a service manager says to the words of a command: an exit status, and a text.
Manager = Callable[[Sequence[str]], tuple[int, str]]

_ELSEWHERE = re.compile(r"(?<![\w.~])/(opt|var|etc)(?=/)")
# As Debian has them.
_FOLDERS = ("opt", "var/lib", "var/log", "var/backups", "etc/systemd/system")
# Seconds, as a guard.
_LONGEST = 300

STAND_INS = {
    # Whoever is root already needs none, and a test has no other user.
    "sudo": 'exec "$@"',
    # The day of the pages' examples.
    "date": "echo 2030-01-31",
    # The packages are installed here, or could be; without apt's lists nobody can tell.
    "apt-get": """
        [ "$1" != update ] || exit 0
        [ "$1" = install ]
        shift
        packages=$(printf '%s\\n' "$@" | grep -v '^-')
        ls /var/lib/apt/lists/*_Packages* > /dev/null 2>&1 || exit 0
        dpkg-query --show $packages > /dev/null 2>&1 || {apt-get} --simulate install $packages
    """,
    # Everything is made already; its targets and what they run are there.
    "make": "exec {make} --silent --dry-run --directory {checkout} {variables}",
    # An environment has the pip that is here already: to unpack it again takes seconds. The Python
    # is the tests', for which their packages were built.
    "python3": """
        [ "$1 $2 $#" = "-m venv 3" ]
        {python} -m venv --without-pip "$3"
        printf '#!/bin/sh\\nexec "%s/bin/python" -m pip "$@"\\n' "$3" > "$3/bin/pip"
        chmod +x "$3/bin/pip"
    """,
    # What is pulled, nobody can foresee.
    "git": '[ "$1" = pull ]',
    # Of all that runs on this host, what runs in the test's own folders.
    "pgrep": """
        first=false
        [ "$1" != -o ] || {{ first=true; shift; }}
        {pgrep} "$@" | while read -r pid rest; do
            case $(readlink "/proc/$pid/cwd") in {root}/*) echo "$pid${{rest:+ $rest}}" ;; esac
        done | if $first; then head -n 1; else cat; fi
    """,
}
_SYSTEMCTL = """
import json, socket, sys
with socket.socket(socket.AF_UNIX) as manager:
    manager.connect({socket!r})
    manager.sendall(json.dumps(sys.argv[1:]).encode() + b"\\n")
    code, text = json.loads(manager.makefile().readline())
print(text, end="", file=sys.stderr)
sys.exit(code)
"""


class ReaderHost:
    """A root folder, stand-ins, and an environment; a context, for its service manager's sake."""

    def __init__(self, root: Path, environment: Mapping[str, str]) -> None:
        """`root`: short, since sockets lie in it. `environment`: what commands have beside."""
        self.root = root
        self.home = root / "home"
        self._programs = root / "stand-ins"
        for folder in (self.home, self._programs, *(root / name for name in _FOLDERS)):
            folder.mkdir(parents=True, exist_ok=True)
        for name, script in STAND_INS.items():
            self._write(name, f"#!/bin/sh\nset -eu\n{_filled(script, name, root)}\n")
        path = f"{self._programs}:{environment.get('PATH', os.environ['PATH'])}"
        self.environment = {**environment, "PATH": path, "HOME": str(self.home)}
        self._listener: socket.socket | None = None

    def place(self, path: str) -> Path:
        """Where a path of a page's is here."""
        return Path(self.rooted(path))

    def rooted(self, text: str) -> str:
        """A page's text with the paths that they are here."""
        return _ELSEWHERE.sub(lambda found: f"{self.root}/{found[1]}", text)

    def types(self, script: str, folder: Path) -> str:
        """Runs a block in a folder; what it printed, errors and all."""
        ended = subprocess.run(
            ["bash", "-euc", self.rooted(script)],
            cwd=folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_LONGEST,
            check=False,
        )
        assert ended.returncode == 0, f"{script}\n{ended.stdout}"
        return ended.stdout

    def begins(self, script: str, folder: Path, log: Path) -> subprocess.Popen[bytes]:
        """Starts a block whose last command goes on; what it prints goes to `log`."""
        lines = self.rooted(script).rstrip("\n").split("\n")
        # The shell becomes it, so that a signal is the command's.
        lines[-1] = f"exec {lines[-1]}"
        with log.open("wb") as out:
            return subprocess.Popen(
                ["bash", "-euc", "\n".join(lines)],
                cwd=folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def managed_by(self, manager: Manager) -> Self:
        """`systemctl` asks `manager` from now on, until the context ends."""
        address = str(self.root / "systemctl")
        self._write("systemctl", f"#!{sys.executable} -IS{_SYSTEMCTL.format(socket=address)}")
        self._listener = listener = socket.socket(socket.AF_UNIX)
        listener.bind(address)
        listener.listen()
        threading.Thread(target=_answer, args=(listener, manager), daemon=True).start()
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._listener is not None:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()

    def _write(self, name: str, text: str) -> None:
        (self._programs / name).write_text(text)
        (self._programs / name).chmod(0o755)


def _filled(script: str, name: str, root: Path) -> str:
    if "{" not in script:
        return script
    real = shutil.which(name)
    words = {"root": root, "checkout": CHECKOUT, "python": sys.executable, "variables": '"$@"'}
    return script.format(**{name: real or f"no-{name}-here"}, **words)


def _answer(listener: socket.socket, manager: Manager) -> None:
    while True:
        try:
            asked, _ = listener.accept()
        except OSError:
            return
        with asked, asked.makefile("rw") as stream:
            try:
                code, text = manager(json.loads(stream.readline()))
            except Exception as error:  # noqa: BLE001 - the command's to tell
                code, text = 1, f"{type(error).__name__}: {error}\n"
            stream.write(json.dumps([code, text]) + "\n")
