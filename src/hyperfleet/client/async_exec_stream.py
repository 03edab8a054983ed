"""A process in a machine over a WebSocket, for asyncio.

One task reads, any may write and give orders.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

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


class AsyncProcessStream:
    """Made by `open` and `attach`; close it, or use it in `async with`.

    The process ends with it, unless it has a name: then it is as with `ProcessStream`.
    """

    def __init__(self, socket: ClientConnection) -> None:
        """For `open` alone, and `attach`."""
        self.attachment: Attachment | None = None
        self._early: Output | Taken | ProcessExit | None = None
        self.exit: ProcessExit | None = None
        self._socket = socket
        self._room = asyncio.Condition()
        self._under_way = 0
        self._over = False

    @classmethod
    async def open(
        cls,
        url: str,
        key: str | None,
        ref: str,
        command: Sequence[str],
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: bool = True,
        terminal: tuple[int, int] | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - the process's
        name: str | None = None,
    ) -> Self:
        """Runs `command` in the machine `ref`; arguments and errors as of `ProcessStream`."""
        first = first_message(
            command, cwd=cwd, env=env, stdin=stdin, terminal=terminal, timeout=timeout, name=name
        )
        return await cls._open(url, key, ref, first, named=name is not None)

    @classmethod
    async def attach(cls, url: str, key: str | None, ref: str, name: str) -> Self:
        """Goes on with a process that is kept; as `ProcessStream.attach`."""
        return await cls._open(url, key, ref, attaching(name), named=True)

    @classmethod
    async def _open(cls, url: str, key: str | None, ref: str, first: str, *, named: bool) -> Self:
        try:
            socket = await connect(
                socket_url(url, ref),
                additional_headers=headers_of(key),
                compression=None,
                proxy=None,
                ssl=tls(url),
                open_timeout=CONNECT_S,
            )
        except InvalidStatus as error:
            answer = error.response
            raise refusal(answer.status_code, bytes(answer.body or b""), None) from error
        except (InvalidHandshake, OSError, TimeoutError) as error:
            raise unreachable(url, error) from error
        stream = cls(socket)
        try:
            await stream._send(first)
            if named:
                await stream._find()
        except BaseException:
            await stream.close()
            raise
        return stream

    async def _find(self) -> None:
        """Hears how the process was found, or that it could not be run."""
        try:
            said = heard(await self._socket.recv())
        except ConnectionClosed as error:
            raise UnreachableError(f"the server ended the connection: {error}") from error
        if isinstance(said, Attachment):
            self.attachment = said
        else:
            self._early = said

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the connection, and the process if it has neither ended nor a name."""
        await self._give_up_room()
        await self._socket.close()

    async def __aiter__(self) -> AsyncIterator[Output]:
        """Its output as it comes; when there is no more, `exit` is how it ended.

        Raises:
            ApiError: it could not be run, or went lost.
            UnreachableError: the server has gone.
        """
        try:
            while True:
                match await self._next():
                    case Output() as output:
                        yield output
                        if self.attachment is not None:
                            await self._send(order("output_taken", bytes=len(output.data)))
                    case Taken(size):
                        async with self._room:
                            self._under_way -= size
                            self._room.notify_all()
                    case ProcessExit() as ended:
                        self.exit = ended
                        if self.attachment is not None:
                            await self._send(order("end_taken"))
        except ConnectionClosed as error:
            if self.exit is None:
                raise UnreachableError(f"the server ended the connection: {error}") from error
        finally:
            await self._give_up_room()

    async def _next(self) -> Output | Taken | Attachment | ProcessExit:
        early, self._early = self._early, None
        return heard(await self._socket.recv()) if early is None else early

    async def write(self, data: bytes) -> None:
        """Gives it input; waits while too much of it is not taken. Once it has ended, drops it."""
        for at in range(0, len(data), PIECE):
            piece = data[at : at + PIECE]
            async with self._room:
                while not self._over and self._under_way + len(piece) > WINDOW:
                    await self._room.wait()
                if self._over:
                    return
                self._under_way += len(piece)
            await self._send(piece)

    async def end_input(self) -> None:
        """There is no more."""
        await self._send(order("eof"))

    async def resize(self, rows: int, columns: int) -> None:
        """Its terminal has another size."""
        await self._send(order("resize", rows=rows, columns=columns))

    async def signal(self, name: str) -> None:
        """Signals it and its group; `INT`, `TERM` and the like."""
        await self._send(order("signal", signal=name))

    async def _send(self, message: str | bytes) -> None:
        try:
            await self._socket.send(message)
        except ConnectionClosed:
            # Whoever reads hears why.
            await self._give_up_room()

    async def _give_up_room(self) -> None:
        async with self._room:
            self._over = True
            self._room.notify_all()
