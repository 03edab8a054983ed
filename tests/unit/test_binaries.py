from __future__ import annotations

from pathlib import Path

import pytest

from hyperfleet import binaries
from hyperfleet.errors import SetupError


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "Cargo.toml").write_text("[workspace]\n")
    (tmp_path / "src/hyperfleet").mkdir(parents=True)
    return tmp_path


def plant(path: Path, mode: int = 0o755) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x7fELF")
    path.chmod(mode)
    return path


def test_a_checkout_has_them_in_its_target_folder(checkout: Path) -> None:
    built = plant(checkout / "target/release/hyperfleet-proxy")
    assert binaries.find(binaries.PROXY, checkout / "src/hyperfleet") == built


def test_a_wheel_has_them_in_the_package(checkout: Path) -> None:
    plant(checkout / "target/release/hyperfleet-proxy")
    bundled = plant(checkout / "src/hyperfleet/_bin/hyperfleet-proxy")
    assert binaries.find(binaries.PROXY, checkout / "src/hyperfleet") == bundled


def test_what_is_not_built_gets_the_command_that_builds_it(checkout: Path) -> None:
    agent = "target/x86_64-unknown-linux-gnu/agent/hyperfleet-guest-agent"
    plant(checkout / agent, mode=0o644)
    with pytest.raises(SetupError, match=r"hyperfleet-guest-agent .*scripts/bootstrap binaries"):
        binaries.find(binaries.GUEST_AGENT, checkout / "src/hyperfleet")


def test_an_installation_that_lacks_one_says_so(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="install it again"):
        binaries.find(binaries.PROXY, tmp_path / "site-packages/hyperfleet")
