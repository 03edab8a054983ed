"""A page of the documentation, and somebody who types what it says."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from support.server import Server

_APK = '["apk", "add", "--no-cache", "nginx"]'
_APT = '["apt-get", "install", "-y", "nginx-light"]'
_MARK = "=== next ==="
# Seconds.
_LONGEST = 300


class Page:
    """A page in Markdown."""

    def __init__(self, path: Path) -> None:
        self._text = path.read_text()

    def blocks(self, language: str) -> list[str]:
        """Its code blocks in a language, in order."""
        return re.findall(rf"^```{language}\n(.*?)^```$", self._text, re.DOTALL | re.MULTILINE)

    def block_with(self, text: str, language: str = "bash") -> str:
        """The one code block that holds `text`."""
        (found,) = [block for block in self.blocks(language) if text in block]
        return found


class Reader:
    """Types commands against a server whose ports are not the documented ones.

    curl is told so by its configuration file; the commands stay as they are.
    """

    def __init__(self, server: Server, *, alpine: bool) -> None:
        """`alpine`: there is an Alpine disk; if not, Debian's name and line stand in its place."""
        self.server = server
        self.machine = "abc123"
        self._alpine = alpine

    def types(self, block: str) -> list[str]:
        """Runs a block, with our key and machine filled in; what each of its paragraphs printed."""
        script = block.replace("abc123", self.machine).replace("hf_your_api_key", self.server.key)
        if not self._alpine:
            script = script.replace("alpine-rootfs", "debian-rootfs").replace(_APK, _APT)
        paragraphs = [part for part in script.split("\n\n") if part.strip()]
        self._write_curlrc()
        ended = subprocess.run(
            ["bash", "-euc", f"\necho '{_MARK}'\n".join(paragraphs)],
            cwd=self.server.folder,
            env={**self.server.environment, "CURL_HOME": str(self.server.folder)},
            capture_output=True,
            text=True,
            timeout=_LONGEST,
            check=False,
        )
        assert ended.returncode == 0, f"{script}\n{ended.stdout}\n{ended.stderr}"
        return [output.removeprefix("\n") for output in ended.stdout.split(_MARK)]

    def _write_curlrc(self) -> None:
        ports = ((3000, self.server.api_port), (4000, self.server.proxy_port))
        hosts = ("localhost", f"{self.machine}-80.local.dev")
        lines = ["silent", "show-error", "fail-with-body", "max-time = 120"]
        lines += [
            f'connect-to = "{host}:{port}:127.0.0.1:{real}"'
            for port, real in ports
            for host in hosts
        ]
        (self.server.folder / ".curlrc").write_text("\n".join(lines) + "\n")
