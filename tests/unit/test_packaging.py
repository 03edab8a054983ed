"""The unit files: whole, and of one mind with the product."""

from __future__ import annotations

import configparser
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import typer.main

from hyperfleet.cli.main import app
from hyperfleet.vmm import cgroup_base

UNITS = Path(__file__).parents[2] / "packaging" / "systemd"


def unit(name: str) -> configparser.ConfigParser:
    parsed = configparser.ConfigParser(interpolation=None, strict=False)
    parsed.optionxform = str  # type: ignore[assignment,method-assign]
    parsed.read_string((UNITS / name).read_text(encoding="utf-8"))
    return parsed


@pytest.mark.parametrize("name", ["hyperfleet.service", "hyperfleet-backup.service"])
def test_what_a_unit_starts_there_is(name: str) -> None:
    program, command, *options = shlex.split(unit(name)["Service"]["ExecStart"])
    assert Path(program).name == "hyperfleet"
    group = typer.main.get_command(app)
    known = group.commands[command]  # type: ignore[attr-defined]
    words = {opt for parameter in known.params for opt in parameter.opts}
    assert {word for word in options if word.startswith("-")} <= words


def test_a_stop_ends_the_server_alone() -> None:
    service = unit("hyperfleet.service")["Service"]
    assert service["KillMode"] == "process"
    assert service["Type"] == "notify"
    assert service["RestartPreventExitStatus"] == "2"
    # Any of these takes /dev/kvm and /dev/net/tun away.
    assert not {"PrivateDevices", "DeviceAllow", "DevicePolicy", "ProtectClock"} & {*service}


def test_machines_are_held_beside_the_server() -> None:
    # The server looks for a unit of that name beside its own.
    machines = unit(cgroup_base.UNIT)["Service"]
    assert machines["Delegate"].split() == [*cgroup_base.CONTROLLERS]
    server = unit("hyperfleet.service")
    assert cgroup_base.UNIT in server["Unit"]["Wants"].split()
    assert cgroup_base.UNIT in server["Unit"]["After"].split()
    assert server["Service"]["OOMPolicy"] == machines["OOMPolicy"] == "continue"
    # With controllers of its own it could not be started again while machines run.
    assert "Delegate" not in server["Service"]


def test_systemd_takes_the_units(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("this host has no systemd")
    program = shutil.which("true")
    for path in UNITS.iterdir():
        text = path.read_text(encoding="utf-8")
        (tmp_path / path.name).write_text(
            text.replace("/opt/hyperfleet/bin/hyperfleet", str(program)), encoding="utf-8"
        )
    names = [str(tmp_path / name.name) for name in UNITS.iterdir()]
    done = subprocess.run(
        ["systemd-analyze", "verify", *names], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
