"""websockets, its asyncio client."""

from __future__ import annotations

import websockets
from websockets.asyncio.client import ClientConnection

from integration.clients.programs.common import Json, content, message, run_all


async def one(origin: str, scenario: Json) -> Json:
    result: Json = {"received": [], "subprotocol": None, "extensions": ""}
    try:
        connection = await websockets.connect(
            origin.replace("http", "ws", 1) + scenario["path"],
            subprotocols=[websockets.Subprotocol(name) for name in scenario["subprotocols"]]
            or None,
            compression="deflate" if scenario["compress"] else None,
            max_size=None,
            proxy=None,
        )
    except websockets.InvalidStatus as refused:
        return result | {"received": [refused.response.status_code]}
    async with connection:
        for step in scenario["steps"]:
            await take(connection, step, result)
    assert connection.response is not None
    result["subprotocol"] = connection.subprotocol
    result["extensions"] = connection.response.headers.get("Sec-WebSocket-Extensions", "")
    return result


async def take(connection: ClientConnection, step: Json, result: Json) -> None:
    match step:
        case {"text": text}:
            await connection.send(text)
        case {"binary": size}:
            await connection.send(content(size))
        case {"fragments": fragments}:
            await connection.send(fragments)
        case {"ping": text}:
            await (await connection.ping(text))
            result["received"].append("pong")
        case {"receive": True}:
            result["received"].append(message(await connection.recv()))
        case {"close": [code, reason]}:
            await connection.close(code, reason)
        case {"closed": True}:
            await connection.wait_closed()
            result["closed"] = [connection.close_code, connection.close_reason]


if __name__ == "__main__":
    run_all(one)
