"""The OpenAPI document as one page of HTML: no scripts, nothing loaded from anywhere."""

from __future__ import annotations

import json
from html import escape
from typing import Any

# Nothing on the page may load or run anything, whatever stands in the document.
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}

_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;
color:#1b1f24;background:#fff}
code,pre{font:14px/1.45 ui-monospace,monospace}
pre{background:#f4f5f7;padding:.75rem;overflow:auto;border-radius:4px}
details{border:1px solid #d7dbe0;border-radius:4px;margin:.5rem 0;padding:.5rem .75rem}
summary{cursor:pointer}summary b{display:inline-block;min-width:4.5rem}
table{border-collapse:collapse;width:100%;margin:.5rem 0}
th,td{text-align:left;vertical-align:top;padding:.25rem .75rem .25rem 0;
border-bottom:1px solid #e6e9ed}
@media(prefers-color-scheme:dark){body{color:#e4e7eb;background:#15181c}pre{background:#22272e}
details,th,td{border-color:#3a4149}a{color:#8ab4f8}}
"""

_EXAMPLES = {"name": "web", "vcpu_count": 1, "mem_size_mib": 256, "cmd": ["uname", "-a"]}
_EXAMPLES |= {"scopes": ["machines:read"], "snapshot": "ready", "size_mib": 1024}


def render(document: dict[str, Any]) -> str:
    """The page."""
    info = document["info"]
    groups: dict[str, list[str]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            entry = _operation(document, method.upper(), path, operation)
            groups.setdefault(operation["tags"][0], []).append(entry)
    body = "".join(
        f"<h2>{escape(tag.capitalize())}</h2>{''.join(entries)}" for tag, entries in groups.items()
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(info['title'])} API</title><style>{_STYLE}</style></head><body>"
        f"<h1>{escape(info['title'])} API {escape(info['version'])}</h1>"
        f"{''.join(f'<p>{escape(part)}</p>' for part in info['description'].split(chr(10) * 2))}"
        '<p>For programs: <a href="/openapi.json">openapi.json</a>.</p>'
        f"{body}</body></html>"
    )


def _operation(document: dict[str, Any], method: str, path: str, operation: dict[str, Any]) -> str:
    scope = operation.get("x-scope")
    needs = f"Needs a key with the scope <code>{escape(scope)}</code>." if scope else "No key."
    body = operation.get("requestBody", {}).get("content", {}).get("application/json")
    schema = _resolve(document, body["schema"]) if body else None
    return (
        f"<details><summary><b>{method}</b> <code>{escape(path)}</code> "
        f"{escape(operation['summary'])}</summary>"
        f"<p>{escape(operation.get('description', ''))}</p><p>{needs}</p>"
        f"<pre>{escape(_curl(method, path, schema, keyed=scope is not None))}</pre>"
        f"{_parameters(document, operation.get('parameters', []))}"
        f"{_fields(document, 'Body', schema)}{_answers(document, operation['responses'])}"
        "</details>"
    )


def _curl(method: str, path: str, schema: dict[str, Any] | None, *, keyed: bool) -> str:
    parts = ["curl" if method == "GET" else f"curl -X {method}", f"http://localhost:3000{path}"]
    if keyed:
        parts.append('-H "Authorization: Bearer $HYPERFLEET_API_KEY"')
    if schema:
        wanted = [*schema.get("required", [])]
        wanted = wanted or [name for name in ("cmd",) if name in schema["properties"]]
        example = {name: _EXAMPLES[name] for name in wanted}
        parts += ['-H "Content-Type: application/json"', f"-d '{json.dumps(example)}'"]
    return " \\\n  ".join(parts)


def _parameters(document: dict[str, Any], parameters: list[dict[str, Any]]) -> str:
    rows = [
        (
            parameter["name"],
            f"{parameter['in']}{', required' if parameter.get('required') else ''}",
            _type(document, parameter["schema"]),
            parameter.get("description", ""),
        )
        for parameter in parameters
    ]
    return _table("Parameters", rows)


def _fields(document: dict[str, Any], title: str, schema: dict[str, Any] | None) -> str:
    if schema is None:
        return ""
    required = schema.get("required", [])
    rows = [
        (
            name,
            "required" if name in required else "",
            _type(document, field),
            field.get("description", ""),
        )
        for name, field in schema.get("properties", {}).items()
    ]
    return _table(title, rows)


def _answers(document: dict[str, Any], responses: dict[str, Any]) -> str:
    rows = []
    for status, response in responses.items():
        content: dict[str, Any] = next(iter(response.get("content", {}).values()), {})
        kind = _type(document, content["schema"]) if content.get("schema") else ""
        rows.append((status, "", kind, response["description"]))
    success = next(
        (
            content["schema"]
            for status, response in responses.items()
            if status.startswith("2")
            for content in response.get("content", {}).values()
            if "$ref" in content.get("schema", {})
        ),
        None,
    )
    shown = _fields(document, "Answer", _resolve(document, success)) if success else ""
    return shown + _table("Statuses", rows)


def _table(title: str, rows: list[tuple[str, str, str, str]]) -> str:
    if not rows:
        return ""
    cells = "".join(
        f"<tr><td><code>{escape(name)}</code></td><td>{escape(note)}</td>"
        f"<td>{escape(kind)}</td><td>{escape(about)}</td></tr>"
        for name, note, kind, about in rows
    )
    return f"<h3>{escape(title)}</h3><table>{cells}</table>"


def _resolve(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    reference = schema.get("$ref")
    if reference is None:
        return schema
    found: dict[str, Any] = document["components"]["schemas"][reference.rpartition("/")[2]]
    return found


def _type(document: dict[str, Any], schema: dict[str, Any]) -> str:
    """A schema in a word or two."""
    if "$ref" in schema:
        found = _resolve(document, schema)
        return (
            "string" if "enum" in found else schema["$ref"].rpartition("/")[2].removesuffix("Out")
        )
    if "anyOf" in schema:
        return " or ".join(_type(document, option) for option in schema["anyOf"])
    match schema.get("type"):
        case "array":
            return f"list of {_type(document, schema['items'])}"
        case None:
            return "anything"
        case kind:
            return str(kind)
