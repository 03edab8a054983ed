"""Who may import whom: the rules, a checker that reads syntax trees, and a test of the checker."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import hyperfleet

# A part is a module or package right under `hyperfleet`, and may import of ours what stands here
# (a name, or what lies under it); a part that is not here may import nothing of ours.
VALUES = frozenset({"errors", "lifecycle", "machine"})
BASE = VALUES | {"controls", "durable", "failpoints", "settings", "unix_sockets", "wire"}
# These never import each other: `fleet` brings them together through their interfaces.
PARTS = ("vmm", "network", "guest", "images", "store", "proxy")
RULES: dict[str, frozenset[str]] = {
    "controls": frozenset(),
    "durable": frozenset(),
    "errors": frozenset(),
    "failpoints": frozenset({"errors"}),
    "garbage": frozenset(),
    "lifecycle": frozenset(),
    "machine": frozenset({"lifecycle"}),
    "settings": frozenset({"errors"}),
    "unix_sockets": frozenset(),
    "wire": frozenset({"errors"}),
    "binaries": frozenset({"errors"}),
    **dict.fromkeys(PARTS, BASE | {"binaries"}),
    "fleet": BASE | frozenset(PARTS),
    "doctor": BASE | {"binaries", "images", "network", "vmm"},
    "api": BASE | {"auth", "fleet"},
    "dashboard": BASE | {"fleet"},
    "auth": BASE,
    "metrics": BASE,
    "client": frozenset({"errors"}),
    # It talks to the client; the rest are the entry points that it starts.
    "cli": frozenset(
        {
            "client",
            "controls",
            "errors",
            "garbage",
            "settings",
            "server",
            "doctor",
            "images.command",
        }
    ),
}
# The composition root puts everything together.
ROOT = "server"
# Plain values and interfaces, which another part may know without knowing the part.
SHARED = frozenset(
    {
        "auth.keys",
        "guest.values",
        "network.interface",
        "proxy.interface",
        "store.interface",
        "vmm.driver",
    }
)


def violations(package: Path) -> list[str]:
    """Every import under the package's folder that the rules forbid, as `file:line: why`."""
    return [
        f"{path.relative_to(package)}:{line}: {origin} may not import {target}"
        for path in sorted(package.rglob("*.py"))
        for origin in [path.relative_to(package).with_suffix("").parts[0]]
        for line, target in _imports(path, package)
        if not _allowed(origin, target)
    ]


def test_every_import_keeps_the_rules() -> None:
    assert violations(Path(hyperfleet.__file__).parent) == []


def test_the_checker_finds_what_is_planted(tmp_path: Path) -> None:
    package = tmp_path / "hyperfleet"
    planted = {
        "machine.py": "from hyperfleet.lifecycle import Status\nfrom hyperfleet import settings\n",
        "vmm/qemu.py": "import hyperfleet.network.user\nfrom hyperfleet.guest.values import Exec\n",
        "vmm/deep/inside.py": "def f():\n    from ...store import sql\n    from .. import driver\n",
        "cli/main.py": "import hyperfleet.images.command\nfrom hyperfleet.images import disks\n",
        "stranger.py": "from . import errors\n",
        "server.py": "from hyperfleet import api, fleet, store\n",
        "fleet/__init__.py": "import os\nfrom hyperfleet import __version__\nfrom .a import X\n",
    }
    for name, text in planted.items():
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert violations(package) == [
        "cli/main.py:2: cli may not import images.disks",
        "machine.py:2: machine may not import settings",
        "stranger.py:1: stranger may not import errors",
        "vmm/deep/inside.py:2: vmm may not import store.sql",
        "vmm/qemu.py:1: vmm may not import network.user",
    ]


def _allowed(origin: str, target: str) -> bool:
    if origin == ROOT or _lies_in(target, frozenset({origin, "__version__"})):
        return True
    return _lies_in(
        target,
        RULES.get(origin, frozenset()) | (SHARED if origin in RULES.keys() - BASE else set()),
    )


def _lies_in(target: str, names: frozenset[str]) -> bool:
    return any(target == name or target.startswith(f"{name}.") for name in names)


def _imports(path: Path, package: Path) -> Iterator[tuple[int, str]]:
    """Line and name (less `hyperfleet.`) of each import of ours, wherever in the file it stands."""
    here = (package.name, *path.relative_to(package).parent.parts)
    prefix = f"{package.name}."
    for node in ast.walk(ast.parse(path.read_bytes(), filename=str(path))):
        match node:
            case ast.Import(names=aliases):
                names = [alias.name for alias in aliases]
            case ast.ImportFrom(module=module, names=aliases, level=level):
                base = here[: len(here) - level + 1] if level else ()
                names = [".".join(filter(None, [*base, module, alias.name])) for alias in aliases]
            case _:
                continue
        for name in names:
            if name.startswith(prefix):
                yield node.lineno, name.removeprefix(prefix)
