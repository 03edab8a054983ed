"""The command line against a real server, and without one."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import typer

from hyperfleet import __version__
from hyperfleet.cli.connect import find
from hyperfleet.cli.keys import expiry
from hyperfleet.errors import SettingsError

from .conftest import Server, run

Serve = Callable[..., Server]
NOW = datetime(2030, 1, 1, tzinfo=UTC)


def test_keys(serve: Serve) -> None:
    server = serve()
    url = {"HYPERFLEET_URL": str(server.client().base_url)}
    made = run(server, "keys", "create", "ci", "--scope", "machines:read", "--json", **url)
    assert made.returncode == 0, made.stderr
    key = json.loads(made.stdout)
    assert key["scopes"] == ["machines:read"]

    listed = run(server, "keys", "list", **url)
    assert key["prefix"] in listed.stdout
    assert key["key"] not in listed.stdout
    names = [
        entry["name"]
        for entry in json.loads(run(server, "keys", "list", "--json", **url).stdout)["keys"]
    ]
    assert names == ["first", "ci"]

    weak = run(server, "keys", "list", HYPERFLEET_API_KEY=key["key"], **url)
    assert (weak.returncode, weak.stdout) == (4, "")
    assert weak.stderr == "hyperfleet: This key lacks the scope *\n"

    assert run(server, "keys", "revoke", key["id"], **url).returncode == 0
    gone = run(server, "keys", "revoke", key["id"], **url)
    assert (gone.returncode, gone.stderr) == (1, f"hyperfleet: Key not found: {key['id']}\n")
    dead = run(server, "keys", "list", HYPERFLEET_API_KEY=key["key"], **url)
    assert dead.returncode == 4
    assert "set HYPERFLEET_API_KEY" in dead.stderr


def test_a_new_key_is_the_first_line(serve: Serve) -> None:
    server = serve()
    url = {"HYPERFLEET_URL": str(server.client().base_url)}
    made = run(server, "keys", "create", "ci", "--expires", "30d", **url)
    secret, words = made.stdout.splitlines()
    assert secret.startswith("hf_")
    assert "machines:read, machines:write, machines:exec" in words
    bad = run(server, "keys", "create", "ci", "--scope", "all", **url)
    assert bad.returncode == 1
    assert "scopes must be a list of machines:read" in bad.stderr


def test_down(serve: Serve) -> None:
    server = serve()
    url = {"HYPERFLEET_URL": str(server.client().base_url)}
    done = run(server, "down", **url)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "web is stopped.\nThe server has stopped.\n"
    code, out, _ = server.end()
    assert code == 0
    assert "Stopped; no machine runs." in out
    again = run(server, "down", **url)
    assert again.returncode == 1
    assert "start `hyperfleet serve`" in again.stderr


def test_no_server(serve: Serve) -> None:
    server = serve()
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        answer = run(server, "keys", "list", HYPERFLEET_URL=url)
    assert answer.returncode == 3
    assert answer.stderr.startswith(f"hyperfleet: No Hyperfleet server answers at {url}")
    assert "hyperfleet serve" in answer.stderr


def test_settings(serve: Serve) -> None:
    server = serve()
    (server.folder / ".env").write_text("PROXY_PREFIX=/p\n")
    shown = run(server, "settings", "--json", PORT="3100")
    rows = {row["name"]: (row["value"], row["from"]) for row in json.loads(shown.stdout)}
    assert rows["PORT"] == ("3100", "environment")
    assert rows["PROXY_PREFIX"] == ("/p", ".env")
    assert rows["PROXY_PORT"] == ("4000", "default")
    table = run(server, "settings", PORT="3100").stdout
    assert ["PORT", "3100", "environment"] in [line.split() for line in table.splitlines()]
    wrong = run(server, "settings", PORT="x", LOG_LEVEL="y")
    assert wrong.returncode == 2
    assert [line.split("=")[0] for line in wrong.stderr.splitlines()] == [
        "hyperfleet: PORT",
        "hyperfleet: LOG_LEVEL",
    ]


def test_which_server_and_key(tmp_path: Path) -> None:
    env_file = tmp_path / ".env"
    home = {"HYPERFLEET_HOME": str(tmp_path)}
    (tmp_path / "api-key").write_text("hf_home\n")

    def found(**environment: str) -> tuple[str, str | None]:
        target = find(home | environment, env_file)
        return target.url, target.key

    assert found() == ("http://127.0.0.1:3000", "hf_home")
    assert found(HOST="0.0.0.0", PORT="3100") == ("http://127.0.0.1:3100", "hf_home")
    assert found(HOST="::") == ("http://[::1]:3000", "hf_home")
    assert found(HYPERFLEET_API_KEY="hf_own") == ("http://127.0.0.1:3000", "hf_own")
    assert found(HYPERFLEET_URL="http://localhost:1/") == ("http://localhost:1", "hf_home")
    # The home's key is not for others.
    assert found(HYPERFLEET_URL="https://fleet.example") == ("https://fleet.example", None)
    with pytest.raises(SettingsError, match="must be a URL"):
        found(HYPERFLEET_URL="fleet.example")
    env_file.write_text("HYPERFLEET_URL=https://b.example\nHYPERFLEET_API_KEY=hf_file\n")
    assert found() == ("https://b.example", "hf_file")


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("90m", NOW + timedelta(minutes=90)),
        ("12h", NOW + timedelta(hours=12)),
        ("30d", NOW + timedelta(days=30)),
        ("2031-01-31", datetime(2031, 1, 31, tzinfo=UTC)),
        ("2031-01-31T12:00:00Z", datetime(2031, 1, 31, 12, tzinfo=UTC)),
    ],
)
def test_expiry(text: str, at: datetime) -> None:
    assert expiry(text, NOW) == at


@pytest.mark.parametrize("text", ["", "30", "0d", "-1d", "30 d", "soon", "1w"])
def test_what_is_no_expiry(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        expiry(text, NOW)


def test_the_version_by_either_name(serve: Serve) -> None:
    server = serve()
    for asked in ("--version", "version"):
        told = run(server, asked)
        assert (told.returncode, told.stdout) == (0, f"{__version__}\n")
    refused = run(server, "--nonsense")
    assert (refused.returncode, refused.stdout) == (2, "")
