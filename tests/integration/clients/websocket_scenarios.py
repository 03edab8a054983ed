"""What every WebSocket client does through the proxy, and what it must see."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from integration.clients.scenarios import MIB, TEXT, WS, content, sha256


class Step(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One of: a message sent (whole or in fragments), one awaited, a ping, a close, its wait."""

    text: str | None = None
    binary: int | None = None
    fragments: tuple[str, ...] | None = None
    receive: bool = False
    ping: str | None = None
    close: tuple[int, str] | None = None
    closed: bool = False


class WebSocketScenario(Struct, frozen=True, kw_only=True):
    """`seen` is what the steps gave in order: messages and "pong"; or the status of a refusal."""

    name: str
    path: str
    steps: tuple[Step, ...]
    seen: tuple[Any, ...]
    subprotocols: tuple[str, ...] = ()
    subprotocol: str | None = None
    # The code and the reason of the end, where a step waits for it.
    closed: tuple[int, str] | None = None
    # Whether the client offers permessage-deflate, which the server always takes.
    compress: bool = False


RECEIVE = Step(receive=True)


def binary(size: int) -> dict[str, Any]:
    """A binary message that was received."""
    return {"length": size, "sha256": sha256(content(size))}


WEBSOCKET_SCENARIOS = (
    WebSocketScenario(
        name="text and binary",
        path=f"{WS}/echo",
        steps=(Step(text="grüße"), RECEIVE, Step(binary=300), RECEIVE, Step(text=""), RECEIVE),
        seen=("grüße", binary(300), ""),
    ),
    WebSocketScenario(
        name="a large message",
        path=f"{WS}/echo",
        steps=(Step(binary=4 * MIB), RECEIVE),
        seen=(binary(4 * MIB),),
    ),
    WebSocketScenario(
        name="fragments up",
        path=f"{WS}/fragments",
        steps=(Step(fragments=("one ", "two ", "three")), RECEIVE),
        seen=("4 4 5",),
    ),
    WebSocketScenario(
        name="fragments down",
        path=f"{WS}/in-fragments",
        steps=(Step(text="abc"), RECEIVE),
        seen=("abc",),
    ),
    WebSocketScenario(
        name="a ping of the client's",
        path=f"{WS}/echo",
        steps=(Step(ping="are you there"), Step(text="after"), RECEIVE),
        seen=("pong", "after"),
    ),
    WebSocketScenario(
        name="a ping of the server's",
        path=f"{WS}/ping",
        steps=(Step(text="ping me"), RECEIVE),
        seen=("ponged",),
    ),
    WebSocketScenario(
        name="the server's close code",
        path=f"{WS}/close",
        steps=(Step(text="enough"), Step(closed=True)),
        seen=(),
        closed=(4001, "enough"),
    ),
    WebSocketScenario(
        name="the client's close code",
        path=f"{WS}/echo?told",
        steps=(Step(close=(4002, "goodbye")), Step(closed=True)),
        seen=(),
        closed=(4002, "goodbye"),
    ),
    WebSocketScenario(
        # The server waits for the one before to have ended there.
        name="which the server has got",
        path=f"{WS}/told",
        steps=(Step(text="what was it?"), RECEIVE),
        seen=("4002 goodbye",),
    ),
    WebSocketScenario(
        name="permessage-deflate",
        path=f"{WS}/echo",
        compress=True,
        steps=(Step(text=TEXT), RECEIVE, Step(binary=100_000), RECEIVE),
        seen=(TEXT, binary(100_000)),
    ),
    WebSocketScenario(
        name="subprotocol",
        path=f"{WS}/echo",
        subprotocols=("first.v2", "second.v1"),
        subprotocol="second.v1",
        steps=(Step(text="x"), RECEIVE),
        seen=("x",),
    ),
    WebSocketScenario(
        name="refused: no such port",
        path="/proxy/web/3000/",
        steps=(),
        seen=(403,),
    ),
)
