"""A process in a machine over a WebSocket, blocking.

One thread reads, any may write and give orders.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Self

from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.sync.client import connect

from hyperfleet.client.answers import UnreachableError, refusal
from hyperfleet.client.http import tls, unreachable
from hyperfleet.client.process import (
    CONNECT_S,
    PIECE,
    WINDOW,
    Attachment,
    Output,
    ProcessExit,
    Taken,
    attaching,
    first_message,
    headers_of,
    heard,
    order,
    socket_url,
)


class ProcessStream:
    """The process ends with it, unless it has a name: close it, or use it in `with`.

    Of a process that has a name, a piece of output is taken when the next is asked for; what is
    not taken comes again to who attaches next, and `attachment` is how the process was found.
    """

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
        name: str | None = None,
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
            name: a DNS label under which it is kept when this ends, to be attached to.

        Raises:
            ApiError: the server refused.
            UnreachableError: none answers.
        """
        first = first_message(
            command, cwd=cwd, env=env, stdin=stdin, terminal=terminal, timeout=timeout, name=name
        )
        self._open(url, key, ref, first, named=name is not None)

    @classmethod
    def attach(cls, url: str, key: str | None, ref: str, name: str) -> Self:
        """Goes on with the process that is kept under `name` in the machine `ref`.

        Whoever is attached to it is left out.

        Raises:
            ApiError: the server refused; NOT_FOUND: there is no such process.
            UnreachableError: none answers.
        """
        stream = cls.__new__(cls)
        stream._open(url, key, ref, attaching(name), named=True)  # noqa: SLF001 - its own
        return stream

    def _open(self, url: str, key: str | None, ref: str, first: str, *, named: bool) -> None:
        self.attachment: Attachment | None = None
        self._early: Output | Taken | ProcessExit | None = None
        self.exit: ProcessExit | None = None
        self._room = threading.Condition()
        self._under_way = 0
        self._over = False
        with ExitStack() as opened:
            try:
                self._socket = opened.enter_context(
                    connect(
                        socket_url(url, ref),
                        additional_headers=headers_of(key),
                        compression=None,
                        proxy=None,
                        ssl=tls(url),
                        open_timeout=CONNECT_S,
                    )
                )
            except InvalidStatus as error:
                answer = error.response
                raise refusal(answer.status_code, bytes(answer.body or b""), None) from error
            except (InvalidHandshake, OSError, TimeoutError) as error:
                raise unreachable(url, error) from error
            self._send(first)
            if named:
                self._find()
            self._opened = opened.pop_all()

    def _find(self) -> None:
        """Hears how the process was found, or that it could not be run."""
        try:
            said = heard(self._socket.recv())
        except ConnectionClosed as error:
            raise UnreachableError(f"the server ended the connection: {error}") from error
        if isinstance(said, Attachment):
            self.attachment = said
        else:
            self._early = said

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection, and the process if it has neither ended nor a name."""
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
                match self._next():
                    case Output() as output:
                        yield output
                        if self.attachment is not None:
                            self._send(order("output_taken", bytes=len(output.data)))
                    case Taken(size):
                        with self._room:
                            self._under_way -= size
                            self._room.notify_all()
                    case ProcessExit() as ended:
                        self.exit = ended
                        if self.attachment is not None:
                            self._send(order("end_taken"))
        except ConnectionClosed as error:
            if self.exit is None:
                raise UnreachableError(f"the server ended the connection: {error}") from error
        finally:
            self._give_up_room()

    def _next(self) -> Output | Taken | Attachment | ProcessExit:
        early, self._early = self._early, None
        return heard(self._socket.recv()) if early is None else early

    def write(self, data: bytes) -> None:
        """Gives it input; waits while too much of it is not taken. Once it has ended, drops it."""
        for at in range(0, len(data), PIECE):
            piece = data[at : at + PIECE]
            with self._room:
                while not self._over and self._under_way + len(piece) > WINDOW:
                    self._room.wait()
                if self._over:
                    return
                self._under_way += len(piece)
            self._send(piece)

    def end_input(self) -> None:
        """There is no more."""
        self._send(order("eof"))

    def resize(self, rows: int, columns: int) -> None:
        """Its terminal has another size."""
        self._send(order("resize", rows=rows, columns=columns))

    def signal(self, name: str) -> None:
        """Signals it and its group; `INT`, `TERM` and the like."""
        self._send(order("signal", signal=name))

    def _send(self, message: str | bytes) -> None:
        try:
            self._socket.send(message)
        except ConnectionClosed:
            # Whoever reads hears why.
            self._give_up_room()

    def _give_up_room(self) -> None:
        with self._room:
            self._over = True
            self._room.notify_all()
