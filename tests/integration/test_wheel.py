"""The wheel: built, installed into an empty environment away from the checkout, and used there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyperfleet import binaries
from support import plain
from support.ports import free_port

PROGRAMS = (binaries.PROXY, binaries.GUEST_AGENT, binaries.GATE, binaries.CONFINE)


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` folder of an environment that has the wheel, and what it depends on.

    What it depends on comes from this environment, by a path file after the wheel: it is what
    requirements.txt pins, and a test that fetches it again would need the network.
    """
    home = tmp_path_factory.mktemp("installed")
    venv.create(home / "env", symlinks=True)
    site = next((home / "env/lib").glob("python3.*/site-packages"))
    run(
        *[sys.executable, "-m", "pip", f"--python={home}/env/bin/python", "--quiet"],
        *["--disable-pip-version-check", "install", "--no-deps", "--no-index", str(wheel)],
    )
    ours = Path(pytest.__file__).parents[1]
    # `site` does not read path files in a folder that is named by one, so the editable
    # installation of the checkout stays out.
    (site / "dependencies.pth").write_text(f"{ours}\n")
    return home / "env/bin"


def test_it_is_a_wheel_for_this_platform_with_all_programs(wheel: Path) -> None:
    assert re.fullmatch(r"hyperfleet-[\d.]+-py3-none-linux_x86_64\.whl", wheel.name)
    with zipfile.ZipFile(wheel) as archive:
        modes = {info.filename: info.external_attr >> 16 for info in archive.infolist()}
    for program in PROGRAMS:
        assert modes[f"hyperfleet/_bin/{program}"] & 0o111 == 0o111
    assert "hyperfleet/py.typed" in modes
    assert not [name for name in modes if name.startswith(("tests/", "crates/", "src/"))]


def test_installed_it_is_used_from_there_and_finds_its_programs(installed: Path) -> None:
    code = (
        "import hyperfleet, json; from hyperfleet import binaries;"
        "print(json.dumps([hyperfleet.__file__, str(binaries.proxy()),"
        " str(binaries.guest_agent())]))"
    )
    places = json.loads(run(str(installed / "python"), "-c", code, cwd=installed))
    environment = str(installed.parent)
    assert all(place.startswith(environment) for place in places), places
    assert run(places[1], "--version").startswith("hyperfleet-proxy ")


@pytest.fixture
def server(installed: Path, tmp_path: Path) -> Iterator[str]:
    """A server with the fake driver, from the installed wheel; its API's address."""
    port, proxy_port = free_port(), free_port()
    environment = {
        "PATH": f"{installed}:{os.environ['PATH']}",
        "HYPERFLEET_VMM": "fake",
        "HYPERFLEET_HOME": str(tmp_path / "home"),
        "DATABASE_PATH": str(tmp_path / "hyperfleet.db"),
        "PORT": str(port),
        "PROXY_PORT": str(proxy_port),
    }
    hyperfleet = str(installed / "hyperfleet")
    with subprocess.Popen(
        [hyperfleet, "serve"],
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            wait_for_banner(process, f"http://127.0.0.1:{port}")
            yield f"http://127.0.0.1:{port}"
        finally:
            subprocess.run([hyperfleet, "down"], cwd=tmp_path, env=environment, check=False)
            process.terminate()
            process.communicate(timeout=60)


def test_a_server_starts_from_it(server: str) -> None:
    assert plain.get(f"{server}/health", timeout=30).raise_for_status().json()["status"] == "ok"


def run(*command: str, cwd: Path | None = None) -> str:
    done = subprocess.run(
        command, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr or done.stdout
    return done.stdout


def wait_for_banner(process: subprocess.Popen[str], address: str) -> None:
    """Returns when the server has printed its address, which it does when it is ready."""
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line)
        if address in line:
            return
    pytest.fail("the server ended before it was ready:\n" + "".join(lines))
