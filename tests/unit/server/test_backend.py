"""What is refused before anything is opened."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from hyperfleet.errors import SettingsError
from hyperfleet.server.backend import Backend
from hyperfleet.settings import load
from hyperfleet.store.database import Database


def refusal(folder: Path, **environment: str) -> str:
    settings = load({"HYPERFLEET_HOME": str(folder), **environment}, None).settings
    with pytest.raises(SettingsError) as refused:
        Backend(settings, Database(create_async_engine("sqlite+aiosqlite://")))
    return refused.value.message


def test_an_api_without_keys_is_not_let_in_to_machines(tmp_path: Path) -> None:
    open_to_all = {"PORT": "3100", "DISABLE_AUTH": "true", "HYPERFLEET_VMM": "fake"}
    ports = {"HYPERFLEET_NETWORK_HOST_PORTS": "5432,3100"}
    assert refusal(tmp_path, **open_to_all, **ports).startswith(
        "HYPERFLEET_NETWORK_HOST_PORTS lets machines reach the API (PORT=3100)"
    )


def test_the_fake_driver_attaches_nothing(tmp_path: Path) -> None:
    told = refusal(tmp_path, HYPERFLEET_VMM="fake", HYPERFLEET_NETWORK="tap")
    assert told == "HYPERFLEET_NETWORK=tap: the fake driver attaches nothing; leave it at auto"
