"""Every page of the documentation is here, with what runs the code on it: none can be forgotten.

A block is run by a test that takes it from the page, whole or by words that are in it, or is made
from what it shows. What is printed (`text`), nobody runs.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from typing import NamedTuple

import pytest
import typer.main

from hyperfleet.cli.main import app
from hyperfleet.settings import SETTINGS
from support.page import CHECKOUT, Page


class Run(NamedTuple):
    """Blocks in a language, and the file that runs them: all, or those that hold one of `words`."""

    language: str
    by: str
    words: tuple[str, ...] = ()


HERE = "tests/unit/test_pages.py"
_COMMAND_LINE = (Run("bash", "tests/integration/test_command_line_page.py"),)
_PAGES = "tests/integration/test_pages.py"
_PRODUCTION = "tests/e2e/test_production_page.py"
_BROWSER = "tests/e2e/browser"

PAGES: dict[str, tuple[Run, ...]] = {
    "ARCHITECTURE.md": (),
    "CHANGELOG.md": (),
    "CONTRIBUTING.md": (Run("bash", HERE),),
    "README.md": (
        Run("bash", HERE, ("make demo",)),
        Run("bash", "tests/e2e/test_page.py", ("hyperfleet serve",)),
    ),
    "docs/explanation/performance.md": (Run("bash", HERE),),
    "docs/explanation/starts.md": _COMMAND_LINE,
    "docs/guides/reverse-proxy.md": (
        Run(
            "bash",
            "tests/e2e/test_page.py",
            (
                '"name": "nginx-server"',
                "abc123/start",
                "# Install nginx",
                "# Output:",
                "local.dev:4000",
                '"name": "web-server"',
                "8080/api/health",
                "curl -X PATCH",
            ),
        ),
        Run("javascript", "tests/e2e/test_page.py", ("WebSocket(",)),
        Run("nginx", "tests/e2e/test_page.py"),
    ),
    "docs/how-to/access-log.md": (
        *(Run(language, _PAGES) for language in ("bash", "ini", "json", "logrotate")),
    ),
    "docs/how-to/backup.md": (Run("bash", _PAGES),),
    "docs/how-to/command-line.md": _COMMAND_LINE,
    "docs/how-to/development-servers.md": (
        Run("bash", f"{_BROWSER}/test_vite.py", ("npx vite", "Vite by ")),
        Run("bash", f"{_BROWSER}/test_uvicorn.py", ("# uvicorn, by ",)),
        Run("js", f"{_BROWSER}/test_vite.py", ("vite.config.js, by ",)),
        Run(
            "js",
            f"{_BROWSER}/test_sveltekit.py",
            ("vite.config.js, SvelteKit by ", "svelte.config.js, by path"),
        ),
    ),
    "docs/how-to/disks.md": _COMMAND_LINE,
    "docs/how-to/files.md": _COMMAND_LINE,
    "docs/how-to/install.md": (
        Run("bash", _PRODUCTION, ("apt-get", "make ", "/bin/hyperfleet serve")),
    ),
    "docs/how-to/keep-running.md": _COMMAND_LINE,
    "docs/how-to/networks-tap.md": (
        Run("bash", _PAGES, ("apt-get", "serve")),
        Run("bash", "tests/e2e/tap/test_tap_upkeep.py", ('"ports": [80, 443]',)),
    ),
    "docs/how-to/networks-user.md": (Run("bash", _PAGES, ("apt-get",)),),
    "docs/how-to/production.md": (
        Run(
            "bash",
            _PRODUCTION,
            ("python3 -m venv", "hyperfleet list", "hyperfleet-{NEXT}-", "hyperfleet restore"),
        ),
        Run("nginx", "tests/integration/test_behind_nginx.py", ("proxy_pass",)),
    ),
    "docs/how-to/prometheus.md": (
        *(
            Run(language, "tests/integration/test_prometheus_page.py")
            for language in ("bash", "promql", "yaml")
        ),
    ),
    "docs/how-to/sleep.md": _COMMAND_LINE,
    "docs/how-to/snapshots.md": _COMMAND_LINE,
    "docs/how-to/terminals.md": (*_COMMAND_LINE, Run("console", HERE)),
    "docs/how-to/upgrade.md": (Run("bash", _PAGES),),
    "docs/reference/bounds.md": (),
    "docs/reference/errors.md": (),
    "docs/reference/events.md": (
        Run("bash", _PAGES, ("curl -N",)),
        Run("python", "tests/integration/test_events.py", ("follow_events",)),
    ),
    "docs/reference/exec-stream.md": (
        Run("python", "tests/integration/test_exec_stream.py"),
        Run("js", "tests/e2e/test_exec_stream.py"),
    ),
    "docs/reference/files.md": (
        Run("bash", "tests/integration/test_files.py", ("hyperfleet cp",)),
        Run("python", "tests/integration/test_files.py", ("write_file",)),
    ),
    "docs/reference/privileges.md": (Run("bash", _PAGES),),
    # Signatures, but for the examples of both clients.
    "docs/reference/sdk.md": (Run("python", "tests/unit/test_reference.py"),),
    "docs/reference/settings.md": (),
    "docs/reference/states.md": (),
    "docs/tutorial/an-app-with-data.md": (
        Run("bash", "tests/e2e/test_tutorial.py"),
        Run("python", "tests/e2e/test_tutorial.py", ("import sqlite3",)),
    ),
    "docs/tutorial/first-machine.md": (Run("bash", "tests/e2e/test_tutorial.py"),),
}


def _pages() -> set[str]:
    """Every page of the checkout that is for people who use or change the product."""
    folders = (CHECKOUT.glob("*.md"), (CHECKOUT / "docs").rglob("*.md"))
    return {str(path.relative_to(CHECKOUT)) for found in folders for path in found}


def test_every_page_is_known() -> None:
    assert _pages() == {*PAGES}


@pytest.mark.parametrize("path", PAGES)
def test_every_block_is_run(path: str) -> None:
    known = PAGES[path]
    forgotten = [
        (language, block)
        for language, block in Page(path).all_blocks()
        if language != "text" and not any(_covers(run, language, block) for run in known)
    ]
    assert forgotten == []


@pytest.mark.parametrize("path", PAGES)
def test_what_is_said_to_run_it_names_it(path: str) -> None:
    for run in PAGES[path]:
        test = (CHECKOUT / run.by).read_text(encoding="utf-8")
        # Those of a folder's apps take their page from a file beside them.
        beside = CHECKOUT / _BROWSER / "dev_server.py"
        text = test + (beside.read_text(encoding="utf-8") if _BROWSER in run.by else "")
        assert path.removeprefix("docs/") in text, run.by
        for words in run.words:
            assert words.replace("\n", "\\n") in test, (run.by, words)
            blocks = Page(path).blocks(run.language)
            assert any(_covers(run._replace(words=(words,)), run.language, one) for one in blocks)


def _covers(run: Run, language: str, block: str) -> bool:
    found = not run.words or any(_filled(words) in block for words in run.words)
    return run.language == language and found


def _filled(words: str) -> str:
    """As the test fills them in."""
    return words.replace("{NEXT}", "0.2.0")


def _commands_of_make() -> list[str]:
    """Lines of the pages that are for the clone, where nothing else is run by name."""
    pages = ("CONTRIBUTING.md", "README.md", "docs/explanation/performance.md")
    blocks = [block for path in pages for block in Page(path).blocks() if "\nmake " in f"\n{block}"]
    return [line.partition("#")[0].strip() for block in blocks for line in block.splitlines()]


@pytest.mark.parametrize("command", [*dict.fromkeys(_commands_of_make())])
def test_what_make_is_told_it_would_do(command: str) -> None:
    """Targets and their variables are there; CI runs the long ones."""
    words = shlex.split(command)
    assert words[0] == "make"
    made = shutil.which("make")
    if made is None:
        pytest.skip("there is no make")
    done = subprocess.run(
        [made, "--dry-run", *words[1:]], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for variable in (word for word in words[1:] if "=" in word):
        name, _, value = variable.partition("=")
        assert re.search(
            rf"--?{name.lower()}[ =]{re.escape(value)}|\b{re.escape(value)}\b", done.stdout
        )


def test_what_a_terminal_shows_is_a_command() -> None:
    group = typer.main.get_command(app)
    lines = [
        line.removeprefix("$ ")
        for block in Page("docs/how-to/terminals.md").blocks("console")
        for line in block.splitlines()
        if line.startswith("$ ")
    ]
    assert lines
    for line in lines:
        program, command, *rest = shlex.split(line)
        assert program == "hyperfleet"
        known = group.commands[command]  # type: ignore[attr-defined]
        # Parsed as it would be, not run.
        known.make_context(command, rest, resilient_parsing=True)
        options = rest[: rest.index("--") if "--" in rest else None]
        letters = {one for word in options if word.startswith("-") for one in word[1:]}
        assert letters <= {opt[1:] for each in known.params for opt in each.opts if opt[1:2] != "-"}


def _text(path: str) -> str:
    return (CHECKOUT / path).read_text(encoding="utf-8")


@pytest.mark.parametrize("path", PAGES)
def test_settings_that_a_page_names_are_there(path: str) -> None:
    names = {
        *re.findall(r"\b(?:HYPERFLEET|PROXY|DATABASE|LOG|DISABLE)_[A-Z_]*[A-Z]\b", _text(path))
    }
    assert names - {setting.name for setting in SETTINGS} <= {
        "HYPERFLEET_URL",
        "HYPERFLEET_API_KEY",
    }


@pytest.mark.parametrize("path", PAGES)
def test_links_lead_to_files_and_headings(path: str) -> None:
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", _text(path)):
        name, _, heading = link.partition("#")
        target = (CHECKOUT / path).parent / name if name else CHECKOUT / path
        assert target.exists(), link
        if heading:
            titles = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            # As GitHub names them.
            anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
            assert heading in anchors, link
