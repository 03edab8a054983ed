"""aiohttp, both its HTTP and its WebSockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp

from integration.clients.programs.common import Json, answer, content, message, run_all


async def one(origin: str, scenario: Json) -> Json:
    connects = 0

    async def connected(*_: object) -> None:
        nonlocal connects
        connects += 1

    trace = aiohttp.TraceConfig()
    trace.on_connection_create_end.append(connected)
    async with aiohttp.ClientSession(
        origin, auto_decompress=False, trace_configs=[trace]
    ) as session:
        if "steps" in scenario:
            return await converse(session, scenario)
        answers = await HOW[scenario["how"]](session, scenario["requests"])
    return {"answers": answers, "connects": connects}


async def in_turn(session: aiohttp.ClientSession, requests: list[Json]) -> list[Json]:
    return [await whole(session, request) for request in requests]


async def early(session: aiohttp.ClientSession, requests: list[Json]) -> list[Json]:
    [request] = requests
    data = content(request["body"]["size"])
    half, begun = len(data) // 2, asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield data[:half]
        await begun.wait()
        yield data[half:]

    async with session.request(request["method"], request["path"], data=body()) as response:
        line = await response.content.readline()
        begun.set()
        return [told(response, line + await response.read())]


async def poll(session: aiohttp.ClientSession, requests: list[Json]) -> list[Json]:
    return list(await asyncio.gather(*(whole(session, request) for request in requests)))


async def stream(session: aiohttp.ClientSession, requests: list[Json]) -> list[Json]:
    async with session.request(requests[0]["method"], requests[0]["path"]) as response:
        text, others = await response.content.readline(), []
        for request in requests[1:]:
            others.append(await whole(session, request))
            text += await response.content.readline()
        return [told(response, text + await response.read()), *others]


HOW = {"requests": in_turn, "early": early, "poll": poll, "stream": stream}


async def whole(session: aiohttp.ClientSession, request: Json) -> Json:
    body, headers = request["body"], dict(request["headers"])
    data: bytes | AsyncIterator[bytes] | None = None
    if body is not None:
        data = content(body["size"])
        if body["chunked"]:
            data = pieces(data)
    async with session.request(
        request["method"],
        request["path"],
        data=data,
        headers=headers,
        expect100=headers.pop("Expect", None) is not None,
    ) as response:
        return told(response, await response.read())


def told(response: aiohttp.ClientResponse, body: bytes) -> Json:
    return answer(response.status, response.headers.items(), body)


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    """A body whose length nobody is told."""
    for start in range(0, len(data), 1 << 16):
        yield data[start : start + (1 << 16)]


async def converse(session: aiohttp.ClientSession, scenario: Json) -> Json:
    """A WebSocket's steps."""
    result: Json = {"received": [], "subprotocol": None, "extensions": ""}
    try:
        socket = await session.ws_connect(
            scenario["path"],
            protocols=scenario["subprotocols"],
            compress=15 if scenario["compress"] else 0,
            max_msg_size=0,
            # Else a pong is not shown, and a ping is answered without being shown.
            autoping=False,
        )
    except aiohttp.WSServerHandshakeError as refused:
        return result | {"received": [refused.status]}
    async with socket:
        for step in scenario["steps"]:
            await take(socket, step, result)
        result["subprotocol"] = socket.protocol
        result["extensions"] = "permessage-deflate" if socket.compress else ""
    return result


async def take(socket: aiohttp.ClientWebSocketResponse, step: Json, result: Json) -> None:
    match step:
        case {"text": text}:
            await socket.send_str(text)
        case {"binary": size}:
            await socket.send_bytes(content(size))
        case {"ping": text}:
            await socket.ping(text.encode())
            assert (await socket.receive()).data == text.encode()
            result["received"].append("pong")
        case {"receive": True}:
            while (got := await socket.receive()).type is aiohttp.WSMsgType.PING:
                await socket.pong(got.data)
            result["received"].append(message(got.data))
        case {"close": [code, reason]}:
            await socket.close(code=code, message=reason.encode())
        case {"closed": True} if socket.closed:
            result["closed"] = [socket.close_code, None]
        case {"closed": True}:
            got = await socket.receive()
            result["closed"] = [got.data, got.extra]


if __name__ == "__main__":
    run_all(one)
