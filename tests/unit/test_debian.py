"""What the Debian disk says of a host that can't make it."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyperfleet.errors import SetupError
from hyperfleet.images.debian import Debian
from hyperfleet.images.workshop import open_workshop


def test_a_user_without_namespaces_is_told_what_gives_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin/mmdebstrap"
    program.parent.mkdir()
    program.write_text(
        "#!/bin/sh\necho 'E: unable to pick chroot mode automatically' >&2\nexit 25\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    with (
        open_workshop(tmp_path / "home") as workshop,
        pytest.raises(SetupError, match=r"unable to pick chroot mode.*newuidmap.*/etc/subuid"),
    ):
        Debian(["nginx-light"]).make(workshop, workshop.scratch / "disk")
