"""httpx (HTTP/1.1 by httpcore and h11)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx

from integration.clients.programs.common import Json, answer, content, run_all


async def one(origin: str, scenario: Json) -> Json:
    connections: set[object] = set()

    async def read(response: httpx.Response) -> Json:
        """The rest of an answer, as it came: nothing uncompressed."""
        stream = response.extensions["network_stream"]
        connections.add(stream.get_extra_info("client_addr"))
        body = b"".join([piece async for piece in response.aiter_raw()])
        return answer(response.status_code, response.headers.items(), body)

    async with httpx.AsyncClient(
        base_url=origin, follow_redirects=True, timeout=60, trust_env=False
    ) as client:

        def sent(request: Json) -> httpx.Request:
            body = request["body"]
            data: bytes | AsyncIterator[bytes] | None = None
            if body is not None:
                data = content(body["size"])
                if body["chunked"]:
                    data = pieces(data)
            return client.build_request(
                request["method"], request["path"], headers=request["headers"], content=data
            )

        async def whole(request: Json) -> Json:
            return await read(await client.send(sent(request), stream=True))

        requests = scenario["requests"]
        match scenario["how"]:
            case "poll":
                answers = list(await asyncio.gather(*map(whole, requests)))
            case "stream":
                response = await client.send(sent(requests[0]), stream=True)
                lines = response.aiter_lines()
                text, others = await anext(lines) + "\n", []
                for request in requests[1:]:
                    others.append(await whole(request))
                    text += await anext(lines) + "\n"
                assert [line async for line in lines] == []
                first = answer(response.status_code, response.headers.items(), text.encode())
                answers = [first, *others]
            case _:
                answers = [await whole(request) for request in requests]
    return {"answers": answers, "connects": len(connections)}


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    """A body whose length nobody is told."""
    for start in range(0, len(data), 1 << 16):
        yield data[start : start + (1 << 16)]


if __name__ == "__main__":
    run_all(one)
