"""The host's side of a session with an agent, against a guest that says whatever comes.

Used by `tests/unit/guest/test_agent_fuzz.py` for a moment and by `scripts/fuzz host` for long.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
from hypothesis import strategies as st

from hyperfleet.errors import GuestError, HyperfleetError, ValidationError
from hyperfleet.guest import kept
from hyperfleet.guest.agent import Agent
from hyperfleet.guest.stream import WINDOW, Stream
from hyperfleet.guest.values import ExecRequest, ProcessRequest
from hyperfleet.wire import guest as wire
from hyperfleet.wire import slip

OUTPUT_LIMIT = 1000
_MOST_INPUT = 2000


class Flood(msgspec.Struct, frozen=True):
    """So many bytes of a call's output."""

    id: int
    size: int


# What the host does, and what the guest says: a message about call 1 to 6, or bytes.
Step = str | wire.FromGuest | Flood | bytes

_ids = st.integers(0, 6)
_texts = st.text(max_size=20)
_data = st.binary(max_size=20)
_floods = st.builds(Flood, _ids, st.sampled_from([OUTPUT_LIMIT, OUTPUT_LIMIT + 1, WINDOW // 2]))
_numbers = st.one_of(st.none(), st.integers(-2, 300))
_listener = st.builds(
    wire.ListenerMessage,
    port=st.sampled_from([0, 80, 65535]),
    address=st.sampled_from(["0.0.0.0", "::", "::1", "fe80::1%e", "no"]),
    direct=st.booleans(),
)
_command = st.builds(
    wire.CommandMessage,
    state=st.sampled_from(["running", "waiting", "exited"]),
    code=_numbers,
    signal=_numbers,
    restarts=_ids,
)
_kept_process = st.builds(
    wire.KeptProcessMessage,
    name=st.sampled_from(["build", "", "no\nname"]),
    argv=st.tuples(_texts),
    since_ns=st.sampled_from([0, 2**64 - 1]),
    attached=st.booleans(),
    terminal=st.booleans(),
    code=_numbers,
    signal=_numbers,
    untaken=_ids,
    dropped=_ids,
)
_said = st.one_of(
    st.builds(wire.Welcome, nonce=_ids, protocol=_ids, agent=_texts, boot_id=_texts),
    st.builds(wire.Done, id=_ids),
    st.builds(
        wire.Attached,
        id=_ids,
        offset=_ids,
        dropped=_ids,
        input=st.sampled_from([0, 1, wire.STDIN_WINDOW, wire.STDIN_WINDOW + 1]),
        stdin=st.booleans(),
        terminal=st.booleans(),
    ),
    st.builds(
        wire.KeptProcesses, id=_ids, processes=st.lists(_kept_process, max_size=2).map(tuple)
    ),
    st.builds(wire.Stdout, id=_ids, data=_data),
    st.builds(wire.Stderr, id=_ids, data=_data),
    st.builds(wire.StdinTaken, id=_ids, bytes=st.sampled_from([0, 1, _MOST_INPUT, 2**32 - 1])),
    st.builds(
        wire.Exited,
        id=_ids,
        code=_numbers,
        signal=_numbers,
        timed_out=st.booleans(),
        truncated=st.booleans(),
    ),
    st.builds(
        wire.Listeners,
        id=_ids,
        listeners=st.lists(_listener, max_size=3).map(tuple),
        truncated=st.booleans(),
    ),
    st.builds(
        wire.News,
        id=_ids,
        number=st.sampled_from([0, 1, 2**64 - 1]),
        command=st.one_of(st.none(), _command),
    ),
    st.builds(wire.Relay, id=_ids, port=st.sampled_from([0, 1, 65535])),
    st.builds(
        wire.Refused,
        id=_ids,
        code=st.sampled_from(["not_found", "version", "failed", "no_process", "replaced"]),
        message=_texts,
    ),
)
_acts = st.sampled_from(
    [
        *("exec", "stream", "keep", "attach", "read", "taken", "write", "abandon"),
        *("kept", "forget", "ports", "watch", "relay", "ping", "configure"),
    ]
)
# Noise ends a session, so most of what comes is well formed.
any_steps = st.lists(
    st.one_of(_acts, _said, _acts, _said, _floods, st.binary(max_size=30)), max_size=12
)


class _Nowhere(asyncio.Transport):
    """The guest's ear: keeps the first thing that the host says, its hello."""

    def __init__(self) -> None:
        super().__init__()
        self.hello: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self.hello.done():
            self.hello.set_result(bytes(data))

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        self._closing = True


class _Session:
    """One agent's, and what the host does in it."""

    def __init__(self, agent: Agent, reader: asyncio.StreamReader) -> None:
        self._agent = agent
        self._reader = reader
        self._streams: list[Stream] = []
        self._doing: list[asyncio.Task[Any]] = []
        self._writing: list[asyncio.Task[None]] = []

    def take(self, step: Step) -> None:
        """The guest says something, or the host begins something."""
        if isinstance(step, bytes):
            self._reader.feed_data(step)
        elif isinstance(step, Flood):
            self.take(wire.Stdout(id=step.id, data=b"x" * step.size))
        elif not isinstance(step, str):
            self._reader.feed_data(slip.frame(wire.encode(step)))
        elif step == "stream":
            with contextlib.suppress(GuestError):
                self._streams.append(self._agent.run(ProcessRequest(argv=("x",))))
        elif step in ("keep", "attach"):
            with contextlib.suppress(GuestError):
                self._streams.append(_named(self._agent, step))
        elif step not in ("read", "taken", "write", "abandon"):
            self._do(_ACTS[step](self._agent))
        elif self._streams:
            self._with(self._streams.pop() if step == "abandon" else self._streams[-1], step)

    def _with(self, stream: Stream, step: str) -> None:
        match step:
            case "abandon":
                self._do(stream.abandon())
            case "taken":
                with contextlib.suppress(GuestError, ValidationError):
                    stream.taken(1)
            case "write":
                # It waits for room for as long as the guest gives none.
                self._writing.append(asyncio.create_task(stream.write(b"i" * _MOST_INPUT)))
            case _:
                self._do(stream.read())

    async def outcomes(self) -> list[Any]:
        """What each thing came to, once the channel is closed: none may be without an end."""
        await self._agent.close()
        for task in self._writing:
            task.cancel()
        self._doing += self._writing
        for stream in self._streams:
            self._do(stream.ended())
        async with asyncio.timeout(5):
            return await asyncio.gather(*self._doing, return_exceptions=True)

    def _do(self, act: Coroutine[Any, Any, Any]) -> None:
        self._doing.append(asyncio.create_task(act))


async def session(steps: list[Step]) -> None:
    """One session in which the steps are taken in turn, the guest's word heard after each.

    Fails when anything is raised but the errors that are for such guests, or when a call is left
    without an end.
    """
    reader, transport = asyncio.StreamReader(), _Nowhere()
    protocol = asyncio.StreamReaderProtocol(asyncio.StreamReader())
    writer = asyncio.StreamWriter(transport, protocol, reader, asyncio.get_running_loop())
    connecting = asyncio.create_task(Agent.connect(reader, writer, timeout=5))
    [payload] = slip.Reader().feed(await transport.hello)
    assert isinstance(payload, bytes)
    hello = wire.decode_to_guest(payload)
    assert isinstance(hello, wire.Hello)
    # The one thing that a liar has to say right.
    welcome = wire.Welcome(nonce=hello.nonce, protocol=wire.PROTOCOL, agent="a", boot_id="b")
    reader.feed_data(slip.frame(wire.encode(welcome)))
    running = _Session(await connecting, reader)
    for step in steps:
        running.take(step)
        for _ in range(5):
            await asyncio.sleep(0)
    protocol.connection_lost(None)
    for outcome in await running.outcomes():
        expected = isinstance(outcome, HyperfleetError | asyncio.CancelledError)
        if isinstance(outcome, BaseException) and not expected:
            raise outcome


def _named(agent: Agent, step: str) -> Stream:
    if step == "attach":
        return kept.attach(agent, "build")
    return kept.keep(agent, "build", ProcessRequest(argv=("x",)))


_ACTS: dict[str, Callable[[Agent], Coroutine[Any, Any, Any]]] = {
    "exec": lambda agent: agent.exec(
        ExecRequest(argv=("x",), stdin=b"i" * _MOST_INPUT, output_limit=OUTPUT_LIMIT)
    ),
    "kept": kept.kept,
    "forget": lambda agent: kept.forget(agent, "build"),
    "ports": lambda agent: agent.listeners(),
    "watch": lambda agent: agent.watch(0),
    "relay": lambda agent: agent.relay("::1", 80),
    "ping": lambda agent: agent.ping(5),
    "configure": lambda agent: agent.configure("web", None),
}
