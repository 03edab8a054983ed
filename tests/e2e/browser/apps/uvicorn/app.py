"""A page with server-sent events, a WebSocket, a form, a cookie: what the browser meets."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated
from urllib.parse import parse_qs

from fastapi import Cookie, FastAPI, Request, Response, WebSocket
from fastapi.responses import RedirectResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles

TITLE = "before"
HERE = Path(__file__).parent

app = FastAPI()
app.mount("/static", StaticFiles(directory=HERE / "static"), name="static")
listeners: set[asyncio.Queue[str]] = set()


@app.get("/")
async def home(request: Request, name: Annotated[str, Cookie()] = "stranger") -> Response:
    """The page; its links are absolute, so they show whether the server knows its own address."""
    page = (HERE / "page.html").read_text()
    for key, value in {
        "TITLE": TITLE,
        "NAME": name,
        "LOGO": str(request.url_for("static", path="logo.svg")),
        "SCRIPT": str(request.url_for("static", path="page.js")),
        "GREET": str(request.url_for("greet")),
    }.items():
        page = page.replace(f"%{key}%", value)
    return Response(page, media_type="text/html")


@app.post("/greet")
async def greet(request: Request) -> Response:
    [name] = parse_qs((await request.body()).decode())["name"]
    answer = RedirectResponse(request.url_for("home"), status_code=303)
    answer.set_cookie("name", name, path=request.scope.get("root_path") or "/", httponly=True)
    return answer


@app.get("/events")
async def events() -> Response:
    """Server-sent events: each that is published, as it is."""
    queue: asyncio.Queue[str] = asyncio.Queue()

    async def stream() -> AsyncIterator[str]:
        listeners.add(queue)
        try:
            while True:
                yield f"data: {await queue.get()}\n\n"
        finally:
            listeners.discard(queue)

    return StreamingResponse(stream(), media_type="text/event-stream")


@app.post("/events/{text}")
async def publish(text: str) -> int:
    """Sends an event to all who listen; how many those are."""
    for queue in listeners:
        queue.put_nowait(text)
    return len(listeners)


@app.websocket("/ws")
async def echo(socket: WebSocket) -> None:
    await socket.accept()
    async for text in socket.iter_text():
        await socket.send_text(f"{text} from {socket.url.path}")
