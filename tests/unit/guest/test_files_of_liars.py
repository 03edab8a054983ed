"""Files of a guest that lies about them: an error for whoever asked, and no more."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperfleet.errors import ConflictError, GuestError, HyperfleetError
from hyperfleet.guest.files import MOST_ENTRIES, Files
from hyperfleet.guest.values import Piece, ProcessEnd, ProcessRequest
from hyperfleet.wire import files as wire
from hyperfleet.wire import guest, length


class Liar:
    """A process whose output is given."""

    def __init__(self, *said: bytes, code: int = 0, complaint: bytes = b"") -> None:
        self._pieces = deque(Piece(data=data, is_error=False) for data in said)
        if complaint:
            self._pieces.append(Piece(data=complaint, is_error=True))
        self._code = code
        self.taken = 0
        self.abandoned = 0

    @property
    def over(self) -> bool:
        return not self._pieces

    async def read(self) -> Piece | None:
        return self._pieces.popleft() if self._pieces else None

    async def ended(self) -> ProcessEnd:
        return ProcessEnd(exit_code=self._code, signal=None)

    async def write(self, data: bytes, *, eof: bool = False) -> None:
        self.taken += len(data)

    async def abandon(self) -> None:
        self.abandoned += 1


def files(liar: Liar) -> Files:
    async def run(_: ProcessRequest) -> Liar:
        return liar

    return Files(run)


def said(message: wire.FileMessage) -> bytes:
    return length.frame(guest.encode(message))


def entry(size: int | None = 3, name: str = "x") -> bytes:
    fields: dict[str, Any] = {"mode": 0o644, "uid": 0, "gid": 0, "mtime": 0}
    return said(wire.Entry(name=name, kind=wire.Kind.FILE, size=size, **fields))


async def content(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def got(liar: Liar) -> bytes:
    contents = await files(liar).get("/x")
    try:
        return b"".join([piece async for piece in contents.pieces()])
    finally:
        await contents.close()


DONE = said(wire.Done(truncated=False))


@pytest.mark.parametrize(
    "liar",
    [
        Liar(),
        Liar(b"\x00\x00"),
        Liar(b"\xff\xff\xff\xff"),
        Liar(length.frame(b"no message")),
        Liar(DONE),
        Liar(entry(3), b"four"),
        Liar(entry(3), b"tw"),
        Liar(entry(3), b"all", code=1),
        Liar(code=127, complaint=b"not \x1b[31mfound"),
    ],
)
async def test_a_file_that_does_not_come_as_it_was_said(liar: Liar) -> None:
    with pytest.raises(GuestError) as raised:
        await got(liar)
    assert raised.value.message.isprintable()
    assert liar.abandoned == 1


@pytest.mark.parametrize(
    ("act", "liar"),
    [
        (lambda files: files.stat("/x"), Liar(entry(), b"more")),
        (lambda files: files.delete("/x", whole=False), Liar(entry())),
        (lambda files: files.list("/x"), Liar(entry(), *[entry()] * (MOST_ENTRIES + 1), DONE)),
        (lambda files: files.list("/x"), Liar(entry(), entry())),
        (lambda files: files.unpack("/x", content(b"tar")), Liar(DONE, DONE)),
    ],
)
async def test_answers_that_are_none(act: Any, liar: Liar) -> None:
    with pytest.raises(GuestError):
        await act(files(liar))
    assert liar.abandoned == 1


async def test_the_guests_words_are_made_fit_to_print() -> None:
    refusal = wire.Refused(code="is_folder", message="\x1b]0;mine\x07" + "x" * 5000)
    with pytest.raises(ConflictError) as raised:
        await got(Liar(said(refusal)))
    assert raised.value.message.isprintable()
    assert len(raised.value.message) < 1100


async def test_what_is_refused_is_not_sent_to_its_end() -> None:
    liar = Liar()
    with pytest.raises(GuestError):
        await files(liar).put("/x", content(*[b"x" * 1000] * 1000))
    assert liar.taken == 1000


@given(st.lists(st.one_of(st.binary(max_size=40), st.sampled_from([entry(), DONE])), max_size=6))
async def test_any_bytes_are_an_answer_or_an_error(pieces: list[bytes]) -> None:
    acts: list[Coroutine[Any, Any, Any]] = [
        got(Liar(*pieces)),
        files(Liar(*pieces)).list("/x"),
        files(Liar(*pieces)).put("/x", content(b"abc")),
        files(Liar(*pieces)).delete("/x", whole=True),
    ]
    for act in acts:
        try:
            await act
        except HyperfleetError:
            continue
