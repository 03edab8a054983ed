"""The endpoints of templates: what machines are started from without booting."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Path, Response

from hyperfleet.api.parts import TheParts
from hyperfleet.api.responses import TemplatesOut, templates_out
from hyperfleet.api.route import GuardedRoute

router = APIRouter(route_class=GuardedRoute, tags=["templates"])


@router.get("/templates", summary="List templates")
async def list_templates(parts: TheParts) -> TemplatesOut:
    """Every template that this host keeps. They are made, and make room, by themselves."""
    return templates_out(await asyncio.to_thread(parts.templates.templates))


@router.delete("/templates/{id}", status_code=204, summary="Remove a template")
async def remove_template(
    template_id: Annotated[str, Path(alias="id", description="The template's id, as listed.")],
    parts: TheParts,
) -> Response:
    """Removes a template. Machines that were started from it run on; the next one boots."""
    await parts.templates.remove_template(template_id)
    return Response(status_code=204)
