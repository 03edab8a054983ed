"""A process in a machine over a WebSocket, blocking; its words: docs/reference/exec-stream.md.

One thread reads, any may write and give orders.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Self
from urllib.parse import quote

import msgspec
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.sync.client import connect

from hyperfleet.client.answers import ApiError, UnreachableError, refusal

# Bytes of input sent and not told as taken, which the server bears; and of one message of ours.
_WINDOW = 1024 * 1024
_PIECE = 64 * 1024
_CONNECT_S = 10.0
_STDERR = 2


class Output(msgspec.Struct, frozen=True):
    """Some output, of standard error or of standard output."""

    data: bytes
    is_error: bool


class ProcessExit(msgspec.Struct, frozen=True):
    """How it ended. `exit_code` is 127 for a program that is missing, 128 + n for signal n."""

    exit_code: int
    signal: str | None
    timed_out: bool


class ProcessStream:
    """The process ends with it: close it, or use it in `with`."""

    def __init__(
        self,
        url: str,
        key: str | None,
        ref: str,
        command: Sequence[str],
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: bool = True,
        terminal: tuple[int, int] | None = None,
        timeout: float | None = None,
    ) -> None:
        """Runs `command` in the machine `ref`.

        Args:
            url: the server's, `http://127.0.0.1:3000`.
            key: begins with `hf_`; it needs the scope `machines:exec`.
            ref: the machine's id or name.
            command: the program and its arguments.
            cwd: a folder in the machine.
            env: variables, over those of the machine.
            stdin: whether input follows; else it is empty.
            terminal: rows and columns of the one that it gets.
            timeout: seconds, after which it is killed; None: no limit.

        Raises:
            ApiError: the server refused.
            UnreachableError: none answers.
        """
        first: dict[str, Any] = {"command": list(command), "env": dict(env or {}), "stdin": stdin}
        if cwd is not None:
            first["cwd"] = cwd
        if timeout is not None:
            first["timeout"] = timeout
        if terminal is not None:
            first["terminal"] = {"rows": terminal[0], "columns": terminal[1]}
        socket = f"{url.rstrip('/').replace('http', 'ws', 1)}/machines/{quote(ref, safe='')}/exec"
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.exit: ProcessExit | None = None
        self._room = threading.Condition()
        self._under_way = 0
        self._over = False
        with ExitStack() as opened:
            try:
                self._socket = opened.enter_context(
                    connect(
                        socket,
                        additional_headers=headers,
                        compression=None,
                        proxy=None,
                        open_timeout=_CONNECT_S,
                    )
                )
            except InvalidStatus as error:
                answer = error.response
                content = bytes(answer.body or b"")
                raise refusal(answer.status_code, content, None) from error
            except (InvalidHandshake, OSError, TimeoutError) as error:
                raise UnreachableError(f"no server answers at {url}: {error}") from error
            self._say(first)
            self._opened = opened.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection, and the process if it has not ended."""
        self._give_up_room()
        self._opened.close()

    def __iter__(self) -> Iterator[Output]:
        """Its output as it comes; when there is no more, `exit` is how it ended.

        Raises:
            ApiError: it could not be run, or went lost.
            UnreachableError: the server has gone.
        """
        try:
            while True:
                message = self._socket.recv()
                if isinstance(message, bytes):
                    yield Output(message[1:], is_error=message[0] == _STDERR)
                else:
                    self._heard(json.loads(message))
        except ConnectionClosed as error:
            if self.exit is None:
                raise UnreachableError(f"the server ended the connection: {error}") from error
        finally:
            self._give_up_room()

    def write(self, data: bytes) -> None:
        """Gives it input; waits while too much of it is not taken. Once it has ended, drops it."""
        for at in range(0, len(data), _PIECE):
            piece = data[at : at + _PIECE]
            with self._room:
                while not self._over and self._under_way + len(piece) > _WINDOW:
                    self._room.wait()
                if self._over:
                    return
                self._under_way += len(piece)
            self._send(piece)

    def end_input(self) -> None:
        """There is no more."""
        self._say({"type": "eof"})

    def resize(self, rows: int, columns: int) -> None:
        """Its terminal has another size."""
        self._say({"type": "resize", "rows": rows, "columns": columns})

    def signal(self, name: str) -> None:
        """Signals it and its group; `INT`, `TERM` and the like."""
        self._say({"type": "signal", "signal": name})

    def _say(self, order: Mapping[str, Any]) -> None:
        self._send(json.dumps(order))

    def _send(self, message: str | bytes) -> None:
        try:
            self._socket.send(message)
        except ConnectionClosed:
            # Whoever reads hears why.
            self._give_up_room()

    def _heard(self, said: dict[str, Any]) -> None:
        match said:
            case {"type": "stdin_taken", "bytes": int(taken)}:
                with self._room:
                    self._under_way -= taken
                    self._room.notify_all()
            case {"type": "exited"}:
                self.exit = msgspec.convert(said, ProcessExit)
            case {"type": "error", "error": {"code": str(code), "message": str(message)}}:
                raise ApiError(code, message, 0, None)
            case _:
                raise ApiError("INTERNAL_ERROR", "The server said what is not known here", 0, None)

    def _give_up_room(self) -> None:
        with self._room:
            self._over = True
            self._room.notify_all()
