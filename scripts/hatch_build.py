"""Puts our native programs into the wheel, which makes it a wheel for one platform."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# As `hyperfleet.binaries` looks for them, and as `scripts/bootstrap binaries` builds them.
PROGRAMS = {
    "target/release/hyperfleet-proxy": "hyperfleet/_bin/hyperfleet-proxy",
    "target/release/hyperfleet-gate": "hyperfleet/_bin/hyperfleet-gate",
    "target/x86_64-unknown-linux-gnu/agent/hyperfleet-guest-agent": (
        "hyperfleet/_bin/hyperfleet-guest-agent"
    ),
}


class NativePrograms(BuildHookInterface):  # type: ignore[type-arg]
    """Hatchling calls it for each wheel; an editable one finds the programs in `target/`."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Adds the programs.

        Raises:
            FileNotFoundError: one is not built.
        """
        if version == "editable":
            return
        for source, target in PROGRAMS.items():
            path = Path(self.root, source)
            if not path.is_file():
                raise FileNotFoundError(f"{source} is not built: run scripts/bootstrap binaries")
            build_data["force_include"][str(path)] = target
        build_data["pure_python"] = False
        build_data["tag"] = "py3-none-linux_x86_64"
