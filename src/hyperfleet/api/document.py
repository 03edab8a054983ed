"""The OpenAPI document, made true: our errors, our 400s, our keys."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from hyperfleet import __version__
from hyperfleet.api.endpoints import ENDPOINTS, errors_of
from hyperfleet.api.errors import STATUS
from hyperfleet.api.responses import ErrorOut

_ABOUT = """\
microVMs ("machines") with an address. JSON in and out; times are UTC, ISO 8601.

Unknown fields and query parameters are refused by name. Every answer carries `X-Request-ID`: the
one that was sent, or a fresh one.
"""


def describe(app: FastAPI) -> dict[str, Any]:
    """The document of `app`."""
    document = get_openapi(
        title="Hyperfleet", version=__version__, description=_ABOUT, routes=app.routes
    )
    schemas = document["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    _say_it_in_json_schema(document)
    error = ErrorOut.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(error.pop("$defs"))
    schemas["ErrorOut"] = error
    document["components"]["securitySchemes"] = {
        "key": {"type": "http", "scheme": "bearer", "description": "A key: `hf_…`"}
    }
    for operations in document["paths"].values():
        for operation in operations.values():
            _correct(operation)
    return document


def _say_it_in_json_schema(schema: Any) -> None:
    """Mends what pydantic can't say of a field that has a validator of ours before its bounds.

    Those come out under their Python names; and keys that a pattern allows are all there may be.
    """
    if isinstance(schema, list):
        for item in schema:
            _say_it_in_json_schema(item)
    elif isinstance(schema, dict):
        for name, keyword in (("ge", "minimum"), ("le", "maximum")):
            if "type" in schema and name in schema:
                schema[keyword] = schema.pop(name)
        if "patternProperties" in schema:
            schema["additionalProperties"] = False
        for value in schema.values():
            _say_it_in_json_schema(value)


def _correct(operation: dict[str, Any]) -> None:
    name = operation["operationId"]
    scope = ENDPOINTS[name].scope
    operation["security"] = [] if scope is None else [{"key": []}]
    if scope is not None:
        operation["x-scope"] = scope.value
    answers = operation["responses"]
    # FastAPI's word for what is wrong with a request is 422; ours is 400.
    answers.pop("422", None)
    codes: dict[int, list[str]] = {}
    for code in errors_of(name):
        codes.setdefault(STATUS[code], []).append(code)
    for status, names in sorted(codes.items()):
        answers[str(status)] = {
            "description": ", ".join(names),
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorOut"}}},
        }
    for answer in answers.values():
        answer["headers"] = {"X-Request-ID": {"schema": {"type": "string"}}}
