"""Pages of the documentation, and somebody who types what they say."""

from __future__ import annotations

import re
import subprocess
import textwrap
from collections.abc import Sequence
from pathlib import Path

from support.server import Server

CHECKOUT = Path(__file__).parents[2]
_APK = '["apk", "add", "--no-cache", "nginx"]'
_APT = '["apt-get", "install", "-y", "nginx-light"]'
_MARK = "=== next ==="
# Seconds.
_LONGEST = 300


class Page:
    """A page in Markdown; `path` starts at the checkout."""

    def __init__(self, path: str) -> None:
        self._text = (CHECKOUT / path).read_text()

    def blocks(self, language: str = "bash") -> list[str]:
        """Its code blocks in a language, in order."""
        return [block for found, block in self.all_blocks() if found == language]

    def all_blocks(self) -> list[tuple[str, str]]:
        """Language and text of every code block, in order; those of lists without their indent."""
        found = re.findall(r"^( *)```(\w*)\n(.*?)^\1```$", self._text, re.DOTALL | re.MULTILINE)
        return [(language, textwrap.dedent(block)) for _, language, block in found]

    def block_with(self, text: str, language: str = "bash") -> str:
        """The one code block that holds `text`."""
        (found,) = [block for block in self.blocks(language) if text in block]
        return found


def promised(block: str) -> list[str]:
    """The lines that a block says will be printed (`# Output: …`)."""
    return re.findall(r"^# Output: (.*)$", block, re.MULTILINE)


def types(server: Server, script: str, hosts: Sequence[str] = ("localhost",)) -> list[str]:
    """Runs a script in the server's folder; what each of its paragraphs printed.

    curl is told by its configuration file that the documented ports of `hosts` are this server's;
    the commands stay as they are.
    """
    ports = ((3000, server.api_port), (4000, server.proxy_port))
    settings = ["silent", "show-error", "fail-with-body", "max-time = 120"]
    settings += [
        f'connect-to = "{host}:{port}:127.0.0.1:{real}"' for port, real in ports for host in hosts
    ]
    (server.folder / ".curlrc").write_text("\n".join(settings) + "\n")
    paragraphs = [part for part in script.split("\n\n") if part.strip()]
    ended = subprocess.run(
        ["bash", "-euc", f"\necho '{_MARK}'\n".join(paragraphs)],
        cwd=server.folder,
        env={**server.environment, "CURL_HOME": str(server.folder)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_LONGEST,
        check=False,
    )
    assert ended.returncode == 0, f"{script}\n{ended.stdout}\n{ended.stderr}"
    return [output.removeprefix("\n") for output in ended.stdout.split(_MARK)]


class Reader:
    """Somebody who fills in their own key and machine."""

    def __init__(self, server: Server, *, alpine: bool) -> None:
        """`alpine`: there is an Alpine disk; if not, Debian's name and line stand in its place."""
        self.server = server
        self.machine = "abc123"
        self._alpine = alpine

    def types(self, block: str) -> list[str]:
        """Runs a block; what each of its paragraphs printed."""
        script = block.replace("abc123", self.machine).replace("hf_your_api_key", self.server.key)
        if not self._alpine:
            script = script.replace("alpine-rootfs", "debian-rootfs").replace(_APK, _APT)
        return types(self.server, script, ("localhost", f"{self.machine}-80.local.dev"))
