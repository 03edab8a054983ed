"""The access log and Server-Timing, from the settings to the file and the client."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from hyperfleet.proxy.process import DataPlaneConfig
from hyperfleet.server.backend import data_plane_config
from hyperfleet.settings import load
from support import plain
from support.data_plane import OK, PATIENCE, WEB, a_machine, opened, page, until


def configured(config: DataPlaneConfig, **environment: str) -> DataPlaneConfig:
    """What the settings say, for the port and in the folder of `config`."""
    home = str(config.socket.parent)
    port = str(config.port)
    said = {"HYPERFLEET_HOME": home, "PROXY_PORT": port, "PROXY_WORKERS": "1", **environment}
    return data_plane_config(load(said, None).settings)


async def test_a_request_has_its_line(
    config: DataPlaneConfig, upstream: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A relative path starts at our working directory, which is not the data plane's.
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    ours = configured(config, PROXY_ACCESS_LOG="access.log", PROXY_ACCESS_LOG_SAMPLE="2")
    log = tmp_path / "here" / "access.log"
    async with opened(ours, a_machine(upstream=upstream)):
        for _ in range(3):
            assert await page(ours) == OK
        await until(lambda: log.read_text().count("\n") == 2)
    for line in map(json.loads, log.read_text().splitlines()):
        assert (line["machine"], line["port"], line["status"]) == (WEB, 80, 200)


async def test_it_may_go_to_the_data_planes_own_log(config: DataPlaneConfig) -> None:
    ours = configured(config, PROXY_ACCESS_LOG="-")
    async with opened(ours):
        assert (await page(ours))[0] == 404
        await until(lambda: '"error":"machine_not_found"' in ours.log.read_text())


def test_unset_it_is_nowhere(config: DataPlaneConfig) -> None:
    assert ("access-log", "") in configured(config).arguments


async def test_clients_are_told_times_if_they_are_to_be(config: DataPlaneConfig) -> None:
    for setting, told in (("true", True), ("false", False)):
        ours = configured(config, PROXY_SERVER_TIMING=setting)
        async with opened(ours), httpx.AsyncClient(verify=plain.NOBODY) as client:
            answer = await client.get(f"http://127.0.0.1:{ours.port}/", timeout=PATIENCE)
            assert ("server-timing" in answer.headers) is told
