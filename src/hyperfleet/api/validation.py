"""From what the checker found wrong to one sentence that names the field and what it may be.

The words come from the field's `description`, so that the error, the OpenAPI document and the
reference say the same.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from hyperfleet.errors import ValidationError

_MOST_SAID = 10
_LONGEST_NAME = 60
# Up to here each whole number is itself in a double (RFC 8259, 6).
_EXACT = 2**53


def explain(
    errors: Sequence[Any], body: type[BaseModel] | None, query: type[BaseModel] | None
) -> str:
    """One sentence for each field that is wrong, at most ten of them."""
    said: dict[str, None] = {}
    for error in errors:
        place, *path = error["loc"]
        model = body if place == "body" else query
        if model is None:
            said[f"{place}: {error['msg']}"] = None
        else:
            said[_sentence(error, path, model, place)] = None
    return "; ".join(list(said)[:_MOST_SAID])


def unknown(kind: str, name: str, known: Sequence[str]) -> str:
    """That there is no such name, with the nearest that there is, else all."""
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f"unknown {kind} {quote(name)}; did you mean {near[0]}?"
    if known:
        return f"unknown {kind} {quote(name)}; known are {', '.join(known)}"
    return f"unknown {kind} {quote(name)}; none is taken here"


def an_object_of(model: type[BaseModel]) -> str:
    """What a body must be, with the fields that it has to hold, or else may hold."""
    fields = model.model_fields
    required = [name for name, field in fields.items() if field.is_required()]
    if required:
        return f"a JSON object with {', '.join(required)}"
    return f"a JSON object that may hold {', '.join(fields)}"


def quote(name: str) -> str:
    """A client's word, cut and escaped so that it can stand in a message and a log."""
    cut = name if len(name) <= _LONGEST_NAME else name[:_LONGEST_NAME] + "…"
    return json.dumps(cut, ensure_ascii=not cut.isprintable())


def parse_json(raw: bytes) -> Any:
    """A JSON text (RFC 8259), strictly: UTF-8, no name twice, no NaN.

    Raises:
        ValidationError: it is none; says where.
    """
    try:
        return json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_no_name_twice,
            parse_constant=_no_constant,
            parse_float=_number,
        )
    except UnicodeDecodeError as error:
        raise ValidationError(f"The body is not UTF-8 (byte {error.start})") from error
    except json.JSONDecodeError as error:
        raise ValidationError(
            f"The body is not JSON: {error.msg} (line {error.lineno}, column {error.colno})"
        ) from error
    except RecursionError as error:
        raise ValidationError("The body is not JSON that we take: nested too deep") from error
    except ValueError as error:
        raise ValidationError(f"The body is not JSON that we take: {error}") from error


def _no_name_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{quote(name)} stands there twice")
        found[name] = value
    return found


def _number(text: str) -> float:
    """1.0 is the whole number 1, as some encoders write it (JSON Schema 2020-12 Core, 4.2.3)."""
    number = float(text)
    return int(number) if number.is_integer() and abs(number) < _EXACT else number


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON value")


def _sentence(error: Any, path: Sequence[Any], model: type[BaseModel], place: str) -> str:
    fields = model.model_fields
    if not path:
        # A rule over several fields speaks for itself; anything else is no object at all.
        if error["type"] == "value_error":
            return str(error["ctx"]["error"])
        return f"The body must be {an_object_of(model)}"
    name = str(path[0])
    if name not in fields:
        return unknown("field" if place == "body" else "query parameter", name, list(fields))
    may_be = fields[name].description
    if error["type"] == "missing" and len(path) == 1:
        return f"{name} is required: {may_be}"
    where = "".join(
        f"[{step if isinstance(step, int) else quote(str(step))}]"
        for step in path[1:]
        if not str(step).startswith("[")
    )
    return f"{name} must be {may_be}" + (f" (look at {name}{where})" if where else "")
