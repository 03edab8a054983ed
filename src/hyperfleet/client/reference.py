"""The reference of the SDK, made from its own docstrings.

`python -m hyperfleet.client.reference docs/reference/sdk.md` writes it.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from hyperfleet import client

_HEAD = """\
# The SDK

Made from the docstrings of `hyperfleet.client`. It stands on httpx and websockets and needs nothing
of the server but its address and a key.

```python
from hyperfleet.client import ApiError, Client

with Client(url, key) as client:
    try:
        machine = client.create_machine(name="web", vcpu_count=1, mem_size_mib=128)
        client.start_machine(machine.id)
        print(client.exec_in_machine("web", ["echo", "hello"]).stdout)
        client.delete_machine("web", force=True)
    except ApiError as error:
        print(error.code, error.message)
```

`AsyncClient` has the same methods, to be awaited; those that give an iterator give one for
`async for`.
"""

_WIDTH = 100


def page() -> str:
    """The whole of it."""
    return "\n".join((_HEAD, *_classes(), *_values()))


def _classes() -> Iterator[str]:
    for kind in (client.Client, client.ProcessStream, client.AsyncProcessStream):
        yield f"## {kind.__name__}\n"
        yield f"{_doc(kind)}\n"
        for name, member in vars(kind).items():
            plain = member.__func__ if isinstance(member, classmethod) else member
            shown = not name.startswith("_") or name in ("__init__", "__iter__", "__aiter__")
            if not shown or not callable(plain) or "For `open` alone" in _doc(plain):
                continue
            yield f"### {_heading(kind, name)}\n"
            yield f"```python\n{_signature(kind, name, plain)}\n```\n"
            yield f"{_doc(plain)}\n"


def _values() -> Iterator[str]:
    yield "## Values\n"
    yield "What comes back; plain and unchangeable. A program that only shows them: `to_json`.\n"
    for name in client.__all__:
        kind: Any = getattr(client, name)
        if not (isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
            continue
        yield f"### {name}\n"
        yield f"{_doc(kind)}\n"
        fields = msgspec.structs.fields(kind)
        if fields:
            annotations = inspect.get_annotations(kind)
            rows = "".join(f"{field.name}: {_plain(annotations[field.name])}\n" for field in fields)
            yield f"```python\n{rows}```\n"
    yield "## Errors\n"
    for kind in (client.ApiError, client.UnreachableError, client.UntrustedError):
        yield f"- `{kind.__name__}`: {_doc(kind)}"
    yield ""


def _heading(kind: type, name: str) -> str:
    match name:
        case "__init__":
            return f"{kind.__name__}(…)"
        case "__iter__":
            return "for output in stream"
        case "__aiter__":
            return "async for output in stream"
        case _:
            return name


def _signature(kind: type, name: str, member: Any) -> str:
    found = inspect.signature(member)
    called = kind.__name__ if name == "__init__" else name
    told = list(_parameters(found))
    gives = "" if found.return_annotation in ("None", found.empty) else found.return_annotation
    after = f" -> {_plain(gives)}" if gives else ""
    line = f"{called}({', '.join(told)}){after}"
    if len(line) <= _WIDTH:
        return line
    inside = "".join(f"    {one},\n" for one in told)
    return f"{called}(\n{inside}){after}"


def _parameters(found: inspect.Signature) -> Iterator[str]:
    """Each as it is written, with the `*` after which names must be told."""
    star = False
    for one in found.parameters.values():
        if one.name in ("self", "cls"):
            continue
        if one.kind is one.KEYWORD_ONLY and not star:
            star = True
            yield "*"
        default = "" if one.default is one.empty else f" = {_quoted(repr(one.default))}"
        yield f"{one.name}: {_plain(one.annotation)}{default}"


def _plain(annotation: Any) -> str:
    return _quoted(str(annotation)).replace("values.", "")


def _quoted(code: str) -> str:
    """As the formatter has it."""
    return code.replace("'", '"')


def _doc(thing: Any) -> str:
    """A docstring, its lists of arguments and errors as such."""
    lines = []
    for line in (inspect.getdoc(thing) or "").splitlines():
        indented = line.startswith("    ")
        told, colon, what = line.strip().partition(": ")
        lines.append(f"- `{told}`: {what}" if indented and colon else line.strip())
        if line in ("Args:", "Raises:"):
            lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
