"""curl, the program: one run of it for a scenario's requests, so that they share a connection."""

from __future__ import annotations

import asyncio
import json
import tempfile
from asyncio.subprocess import PIPE, Process
from pathlib import Path

from integration.clients.programs.common import Json, answer, content, run_all

# Nobody's configuration, redirects followed, patience with 100-continue.
OPTIONS = ("--silent", "--show-error", "--max-time", "60")
EACH = ("--location", "--no-buffer", "--expect100-timeout", "30")


class Transfer:
    """One of curl's transfers and the files that it leaves."""

    def __init__(self, origin: str, request: Json, folder: Path) -> None:
        folder.mkdir()
        self._request = request
        self._head, self._body = folder / "head", folder / "body"
        self.arguments = [*EACH, "--dump-header", str(self._head), "--write-out", "%{json}\n"]
        if request["method"] == "HEAD":
            self.arguments += ["--head"]
        else:
            self.arguments += ["--request", request["method"]]
        headers = dict(request["headers"])
        if request["body"] is not None:
            if request["body"]["chunked"]:
                headers["Transfer-Encoding"] = "chunked"
            sent = folder / "sent"
            sent.write_bytes(content(request["body"]["size"]))
            self.arguments += ["--upload-file", str(sent)]
        for name, value in headers.items():
            self.arguments += ["--header", f"{name}: {value}"]
        self.arguments += [origin + request["path"]]

    def to_file(self) -> list[str]:
        return [*self.arguments, "--output", str(self._body)]

    def answer(self, body: bytes | None = None) -> Json:
        """Its answer: the last head, what came before it, the fields after it."""
        if body is None:
            body = self._body.read_bytes() if self._body.exists() else b""
        if self._request["method"] == "HEAD":
            body = b""
        heads: list[tuple[int, list[tuple[str, str]]]] = []
        trailers: dict[str, str] = {}
        for block in self._head.read_bytes().decode().split("\r\n\r\n"):
            first, *lines = block.split("\r\n")
            if first.startswith("HTTP/"):
                heads.append((int(first.split()[1]), [_field(line) for line in lines]))
            else:
                trailers |= {k.lower(): v for k, v in map(_field, block.split("\r\n")) if k}
        status, fields = heads[-1]
        interim = [code for code, _ in heads if code < 200 and code != 100]
        return answer(status, fields, body, trailers=trailers, interim=interim)


def _field(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name, value.strip()


async def one(origin: str, scenario: Json) -> Json:
    with tempfile.TemporaryDirectory() as folder:
        return await HOW[scenario["how"]](origin, scenario["requests"], Path(folder))


async def in_turn(origin: str, requests: list[Json], folder: Path) -> Json:
    transfers = [
        Transfer(origin, request, folder / str(number)) for number, request in enumerate(requests)
    ]
    arguments: list[str] = []
    for transfer in transfers:
        arguments += (["--next"] if arguments else []) + transfer.to_file()
    told = (await _ended(await _start(*arguments))).splitlines()
    connects = sum(json.loads(line)["num_connects"] for line in told)
    return {"answers": [transfer.answer() for transfer in transfers], "connects": connects}


async def poll(origin: str, requests: list[Json], folder: Path) -> Json:
    results = await asyncio.gather(
        *(
            in_turn(origin, [request], _made(folder / f"of-{number}"))
            for number, request in enumerate(requests)
        )
    )
    return {"answers": [result["answers"][0] for result in results], "connects": None}


async def stream(origin: str, requests: list[Json], folder: Path) -> Json:
    transfer = Transfer(origin, requests[0], folder / "0")
    process = await _start(*transfer.arguments)
    assert process.stdout is not None
    body, others = await process.stdout.readline(), []
    for number, request in enumerate(requests[1:]):
        others += (await in_turn(origin, [request], _made(folder / f"of-{number}")))["answers"]
        body += await process.stdout.readline()
    body += await _ended(process)
    # curl's own line is the last.
    return {"answers": [transfer.answer(body[: body.rindex(b"{")]), *others], "connects": None}


HOW = {"requests": in_turn, "poll": poll, "stream": stream}


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


async def _start(*arguments: str) -> Process:
    return await asyncio.create_subprocess_exec(
        "curl", "--disable", *OPTIONS, *arguments, stdout=PIPE, stderr=PIPE
    )


async def _ended(process: Process) -> bytes:
    """What is left of its output.

    Raises:
        RuntimeError: curl says that it failed.
    """
    output, complaint = await process.communicate()
    if process.returncode != 0:
        raise RuntimeError(complaint.decode().strip())
    return output


if __name__ == "__main__":
    run_all(one)
