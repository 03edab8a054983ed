"""What a service manager hears."""

from __future__ import annotations

import secrets
import socket
from pathlib import Path

import pytest

from hyperfleet.server import notify


@pytest.mark.parametrize("abstract", [False, True])
def test_a_manager_hears_each_word(abstract: bool, tmp_path: Path) -> None:
    name = f"@hyperfleet-{secrets.token_hex(8)}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{name[1:]}" if abstract else name)
        manager.settimeout(10)
        for word in (notify.READY, notify.STOPPING):
            notify.tell(word, {"NOTIFY_SOCKET": name})
            assert manager.recv(100) == word.encode()


@pytest.mark.parametrize("name", [None, "", "relative", "/nobody/there", "@nobody-there"])
def test_without_a_manager_nothing_happens(name: str | None) -> None:
    notify.tell(notify.READY, {} if name is None else {"NOTIFY_SOCKET": name})
