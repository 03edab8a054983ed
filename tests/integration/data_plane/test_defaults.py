"""What is the case where nobody sets anything: the data plane's own word, and the settings'."""

from __future__ import annotations

import re
import subprocess

from hyperfleet.settings import load
from support import proxy
from support.need import Need

# Milliseconds, as docs/reference/settings.md promises them.
TIME_LIMITS = {
    "head": 10_000,
    "idle": 75_000,
    "connect": 5_000,
    "response": 300_000,
    "body": 300_000,
    "tunnel": 3_600_000,
}


def test_both_have_the_same_time_limits(need: Need) -> None:
    told = subprocess.run(
        [proxy.binary(need), "--help"], check=True, capture_output=True, text=True
    ).stdout
    by_option = dict(re.findall(r"^  --(\S+) MS .*\[(\d+)\]$", told, re.MULTILINE))
    settings = load({}, None).settings
    for name, milliseconds in TIME_LIMITS.items():
        assert int(by_option[f"{name}-timeout-ms"]) == milliseconds, name
        assert getattr(settings, f"proxy_{name}_timeout_ms") == milliseconds, name
