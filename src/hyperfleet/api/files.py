"""A machine's files: raw bytes in and out as they come, never whole in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from hyperfleet.api import queries
from hyperfleet.api.interface import Contents
from hyperfleet.api.machines import Ref
from hyperfleet.api.parts import TheParts
from hyperfleet.api.responses import FileOut, FolderOut, file_out
from hyperfleet.api.route import Guard, GuardedRoute, StreamedRoute
from hyperfleet.errors import (
    ConflictError,
    GuestError,
    HyperfleetError,
    RequestTimeoutError,
    ValidationError,
)
from hyperfleet.guest.values import FileInfo

router = APIRouter(route_class=GuardedRoute, tags=["files"])
uploads = APIRouter(route_class=StreamedRoute, tags=["files"])

_BYTES = "application/octet-stream"
_TAR = "application/x-tar"
# What a client may still send once its upload was refused, in bytes and seconds: most read no
# answer before they have sent all.
_REFUSED_BYTES = 16 * 1024 * 1024
_REFUSED_S = 10.0


@router.get(
    "/machines/{id}/files",
    summary="Read a file or list a folder",
    response_model=FolderOut,
    responses={200: {"content": {_BYTES: {}, _TAR: {}}}},
)
async def read_file(
    ref: Ref, query: Annotated[queries.ReadFile, Query()], parts: TheParts
) -> Response:
    """A file's bytes; of a folder, what is in it, or with `archive=true` all of it as a tar.

    What it is stands in headers, for HEAD as well: `X-File-Type`, `X-File-Mode`, `X-File-Owner`,
    `Last-Modified`. Symbolic links are followed.
    """
    files = parts.machines.files(ref)
    if query.archive:
        return _Body(await files.pack(query.path), _TAR)
    try:
        return _Body(await files.get(query.path), _BYTES)
    except ConflictError:
        listing = await files.list(query.path)
    out = FolderOut(
        entries=[file_out(entry) for entry in listing.entries], truncated=listing.truncated
    )
    return JSONResponse(out.model_dump(mode="json"), headers=_headers(listing.folder))


@uploads.put("/machines/{id}/files", summary="Write a file")
async def write_file(
    request: Request, ref: Ref, query: Annotated[queries.WriteFile, Query()], parts: TheParts
) -> FileOut:
    """The body's bytes become the file, whole or not at all; with `archive=true` they are a tar.

    A file that is there keeps its mode and owner unless told otherwise; a new one has 0644 and is
    root's.
    """
    if query.archive and (query.mode or query.owner or query.parents):
        raise ValidationError("mode, owner and parents are the tar's: leave them out with archive")
    files = parts.machines.files(ref)
    guard: Guard = request.app.state.guard
    body = _arriving(request, guard.arrival_s)
    try:
        if query.archive:
            await files.unpack(query.path, body)
            return file_out(await files.stat(query.path))
        uid, _, gid = (query.owner or "").partition(":")
        info = await files.put(
            query.path,
            body,
            size=_announced(request),
            mode=int(query.mode, 8) if query.mode else None,
            owner=(int(uid), int(gid)) if query.owner else None,
            parents=query.parents,
        )
        return file_out(info)
    except ClientDisconnect:
        raise GuestError("The client went before all had come; nothing was made") from None
    except RequestTimeoutError:
        # Nothing more will come.
        raise
    except HyperfleetError:
        await _drop(request)
        raise


@router.delete("/machines/{id}/files", status_code=204, summary="Delete a file or a folder")
async def delete_file(
    ref: Ref, query: Annotated[queries.DeleteFile, Query()], parts: TheParts
) -> Response:
    """Removes a file, a link (not what it leads to), an empty folder, or a whole one."""
    await parts.machines.files(ref).delete(query.path, whole=query.recursive)
    return Response(status_code=204)


class _Body(StreamingResponse):
    """Bytes that come out of a machine."""

    def __init__(self, contents: Contents, media_type: str) -> None:
        headers = _headers(contents.info)
        if contents.size is not None:
            headers["Content-Length"] = str(contents.size)
        super().__init__(contents.pieces(), media_type=media_type, headers=headers)
        self._contents = contents

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See `StreamingResponse`."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._contents.close()


def _headers(info: FileInfo) -> dict[str, str]:
    shown = file_out(info)
    headers = {
        "X-File-Type": shown.type,
        "X-File-Mode": shown.mode,
        "X-File-Owner": shown.owner,
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-store",
    }
    try:
        written = datetime.fromtimestamp(info.mtime, UTC)
    except (OverflowError, ValueError, OSError):
        # A guest may say what it likes.
        return headers
    return {**headers, "Last-Modified": format_datetime(written, usegmt=True)}


def _announced(request: Request) -> int | None:
    announced = request.headers.get("content-length", "")
    return int(announced) if announced.isdigit() else None


async def _arriving(request: Request, patience: float) -> AsyncIterator[bytes]:
    """The body as it comes, each part within `patience` seconds."""
    coming = aiter(request.stream())
    while True:
        try:
            async with asyncio.timeout(patience):
                piece = await anext(coming, None)
        except TimeoutError as error:
            message = f"Nothing of the body came for {patience:g} s"
            raise RequestTimeoutError(message) from error
        if piece is None:
            return
        yield piece


async def _drop(request: Request) -> None:
    """Takes what a refused client still sends, so that it reads the answer; not without end."""
    left = _REFUSED_BYTES
    try:
        async with asyncio.timeout(_REFUSED_S):
            async for piece in request.stream():
                left -= len(piece)
                if left < 0:
                    return
    except (TimeoutError, ClientDisconnect, RuntimeError):
        # RuntimeError: it has been read to its end.
        return
