"""The endpoints of keys."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Response

from hyperfleet.api import requests
from hyperfleet.api.parts import TheParts
from hyperfleet.api.responses import KeysOut, NewKeyOut, key_out, new_key_out
from hyperfleet.api.route import GuardedRoute

router = APIRouter(route_class=GuardedRoute, tags=["keys"])


@router.post("/keys", status_code=201, summary="Make a key")
async def create_key(body: requests.CreateKey, parts: TheParts) -> NewKeyOut:
    """Makes a key; this answer is the only place where it is ever shown."""
    issued = await parts.keyring.create(
        name=body.name, scopes=tuple(body.scopes), expires_at=body.expires_at
    )
    return new_key_out(issued)


@router.get("/keys", summary="List keys")
async def list_keys(parts: TheParts) -> KeysOut:
    """Every key that is not revoked; expired ones are among them."""
    return KeysOut(keys=[key_out(key) for key in await parts.keyring.list()])


@router.delete("/keys/{id}", status_code=204, summary="Revoke a key")
async def revoke_key(
    key_id: Annotated[str, Path(alias="id", description="The key's id, as listed.")],
    parts: TheParts,
) -> Response:
    """Ends a key, at once and for good."""
    await parts.keyring.revoke(key_id)
    return Response(status_code=204)
