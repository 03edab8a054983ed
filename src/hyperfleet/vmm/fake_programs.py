"""The programs of a fake guest: enough of a Unix to try the product on, none of the host's.

A program is a generator: it yields seconds to sleep and returns its exit status. No task, no
thread and no process stands behind one.
"""

from __future__ import annotations

import posixpath
import re
import shlex
import signal
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Protocol

from hyperfleet.vmm import fake_files
from hyperfleet.vmm.fake_faults import Channel

# Yields seconds to sleep, returns the exit status.
Run = Generator[float, None, int]

_NOT_FOUND = 127
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


class Killed(Exception):  # noqa: N818 - an ending, not an error
    """The program was ended by a signal, its number."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class System(Protocol):
    """What programs ask of the guest they run in."""

    hostname: str
    files: dict[str, bytes]

    def listen(self, address: str, port: int, folder: str) -> bool:
        """A web server over `folder`; False: the address is taken."""

    def stop_listening(self) -> None:
        """Ends every web server."""

    def power_off(self) -> None:
        """Ends the guest in order."""

    def turn(self, behaviour: Channel) -> None:
        """Its agent behaves so from now on."""


class Programs:
    """One process: its streams, environment and directory."""

    def __init__(
        self, system: System, environment: Mapping[str, str], cwd: str, stdin: bytes
    ) -> None:
        self.stdout = bytearray()
        self.stderr = bytearray()
        self._system = system
        self._environment = dict(environment)
        self._cwd = cwd
        self._stdin = stdin
        self._table: dict[str, Callable[[Sequence[str]], Run]] = {
            "cat": self._cat,
            "echo": self._echo,
            "env": self._env,
            # The agent's own program, `wire.files.PROGRAM`.
            "exe": self._agent,
            "false": _false,
            "hostname": self._hostname,
            "httpd": self._httpd,
            "kill": _kill,
            "killall": self._killall,
            "poweroff": self._poweroff,
            "pwd": self._pwd,
            "rm": self._rm,
            "sh": self._sh,
            "sleep": _sleep,
            "sync": _true,
            "true": _true,
            "turn": self._turn,
        }

    def knows(self, program: str) -> bool:
        """Whether there is such a program; the folder it is asked for in does not matter."""
        return posixpath.basename(program) in self._table

    def run(self, argv: Sequence[str]) -> Run:
        """The program, as a shell would run it: 127 when it is missing."""
        if not self.knows(argv[0]):
            self._complain(argv[0], "not found")
            return _NOT_FOUND
        return (yield from self._table[posixpath.basename(argv[0])](argv[1:]))

    def _path(self, name: str) -> str:
        return posixpath.normpath(posixpath.join(self._cwd, name))

    def _print(self, text: str) -> None:
        self.stdout += text.encode()

    def _complain(self, program: str, why: str) -> None:
        self.stderr += f"{program}: {why}\n".encode()

    def _cat(self, names: Sequence[str]) -> Run:
        yield from ()
        if not names:
            self.stdout += self._stdin
        missing = 0
        for name in names:
            content = self._system.files.get(self._path(name))
            if content is None:
                self._complain("cat", f"{name}: No such file or directory")
                missing = 1
            else:
                self.stdout += content
        return missing

    def _echo(self, words: Sequence[str]) -> Run:
        yield from ()
        ending = "\n"
        if words[:1] == ["-n"]:
            words, ending = words[1:], ""
        self._print(" ".join(words) + ending)
        return 0

    def _env(self, _: Sequence[str]) -> Run:
        yield from ()
        self._print("".join(f"{name}={value}\n" for name, value in self._environment.items()))
        return 0

    def _agent(self, arguments: Sequence[str]) -> Run:
        yield from ()
        said, code = fake_files.perform(self._system.files, arguments[1:], self._stdin)
        self.stdout += said
        return code

    def _hostname(self, _: Sequence[str]) -> Run:
        yield from ()
        self._print(f"{self._system.hostname}\n")
        return 0

    def _httpd(self, arguments: Sequence[str]) -> Run:
        """Busybox's: `httpd [-p [ADDRESS:]PORT] [-h FOLDER]`; it goes to the background."""
        yield from ()
        options = dict(zip(arguments[::2], arguments[1::2], strict=False))
        address, _, port = options.get("-p", "80").rpartition(":")
        folder = self._path(options.get("-h", "."))
        if not port.isdigit() or options.keys() - {"-p", "-h"}:
            self._complain("httpd", "usage: httpd [-p [ADDRESS:]PORT] [-h FOLDER]")
            return 1
        if not self._system.listen(address.strip("[]") or "0.0.0.0", int(port), folder):
            self._complain("httpd", "bind: Address already in use")
            return 1
        return 0

    def _killall(self, names: Sequence[str]) -> Run:
        yield from ()
        if list(names) != ["httpd"]:
            self._complain("killall", "no process killed")
            return 1
        self._system.stop_listening()
        return 0

    def _poweroff(self, _: Sequence[str]) -> Run:
        yield from ()
        self._system.power_off()
        return 0

    def _turn(self, words: Sequence[str]) -> Run:
        """As root in a real guest may put another program in the agent's place."""
        yield from ()
        if len(words) != 1 or words[0] not in set(Channel):
            self._complain("turn", f"usage: turn {'|'.join(Channel)}")
            return 1
        self._system.turn(Channel(words[0]))
        return 0

    def _pwd(self, _: Sequence[str]) -> Run:
        yield from ()
        self._print(f"{self._cwd}\n")
        return 0

    def _rm(self, names: Sequence[str]) -> Run:
        yield from ()
        for name in names:
            self._system.files.pop(self._path(name), None)
        return 0

    def _sh(self, arguments: Sequence[str]) -> Run:
        """`sh -c SCRIPT`, with `;`, `&&`, `>`, `>>`, `$NAME`, `$$`, `exit` and `cd`."""
        if len(arguments) < 2 or arguments[0] != "-c":  # noqa: PLR2004 - -c and its script
            self._complain("sh", "usage: sh -c SCRIPT")
            return 2
        lexer = shlex.shlex(arguments[1], posix=True, punctuation_chars=";&>")
        lexer.whitespace_split = True
        status, skip = 0, False
        for words, separator in _commands(list(lexer)):
            if words and not skip:
                if words[0] == "exit":
                    return int(words[1]) if words[1:] else status
                status = yield from self._command([self._expand(word) for word in words])
            skip = separator == "&&" and status != 0
        return status

    def _command(self, words: list[str]) -> Run:
        target, append = "", False
        if len(words) > 2 and words[-2] in (">", ">>"):  # noqa: PLR2004 - redirection and file
            append, target, words = words[-2] == ">>", self._path(words[-1]), words[:-2]
        if words[0] == "cd":
            self._cwd = self._path(words[1] if words[1:] else "/root")
            return 0
        outer, self.stdout = self.stdout, bytearray()
        try:
            status = yield from self.run(words)
        finally:
            written, self.stdout = self.stdout, outer
        if target:
            before = self._system.files.get(target, b"") if append else b""
            self._system.files[target] = before + bytes(written)
        else:
            self.stdout += written
        return status

    def _expand(self, word: str) -> str:
        return _VARIABLE.sub(lambda name: self._environment.get(name[1] or name[2], ""), word)


def _commands(words: list[str]) -> list[tuple[list[str], str]]:
    """The words of each command, with the separator that ends it."""
    found: list[tuple[list[str], str]] = [([], "")]
    for word in words:
        if word in (";", "&&"):
            found[-1] = (found[-1][0], word)
            found.append(([], ""))
        else:
            found[-1][0].append(word)
    return found


def _true(_: Sequence[str]) -> Run:
    yield from ()
    return 0


def _false(_: Sequence[str]) -> Run:
    yield from ()
    return 1


def _sleep(arguments: Sequence[str]) -> Run:
    yield float(arguments[0])
    return 0


def _kill(arguments: Sequence[str]) -> Run:
    """`kill [-SIGNAL] $$`: only itself can be meant, there is no other process."""
    yield from ()
    name = arguments[0].removeprefix("-").removeprefix("SIG") if arguments[1:] else "TERM"
    raise Killed(int(name) if name.isdigit() else signal.Signals[f"SIG{name}"])
