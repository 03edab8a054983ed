"""Pages of the documentation, run as they are written."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from support.server import Server

DOCS = Path(__file__).parents[2] / "docs"
_MARK = "=== next ==="


def blocks(page: Path, language: str) -> list[str]:
    """The page's code blocks in a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)


def promised(block: str) -> list[str]:
    """The lines that the block says will be printed (`# Output: …`)."""
    return re.findall(r"^# Output: (.*)$", block, re.MULTILINE)


def types(server: Server, script: str, hosts: Sequence[str] = ("localhost",)) -> list[str]:
    """Runs a script in the server's folder; what each of its paragraphs printed.

    curl is told by its configuration file that the documented ports of `hosts` are this server's.
    """
    paragraphs = [part for part in script.split("\n\n") if part.strip()]
    ports = ((3000, server.api_port), (4000, server.proxy_port))
    (server.folder / ".curlrc").write_text(
        "silent\nshow-error\nfail-with-body\nmax-time = 120\n"
        + "".join(
            f'connect-to = "{host}:{port}:127.0.0.1:{real}"\n'
            for port, real in ports
            for host in hosts
        )
    )
    ended = subprocess.run(
        ["bash", "-euc", f"\necho '{_MARK}'\n".join(paragraphs)],
        cwd=server.folder,
        env={**server.environment, "CURL_HOME": str(server.folder)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, f"{script}\n{ended.stdout}\n{ended.stderr}"
    return [output.removeprefix("\n") for output in ended.stdout.split(_MARK)]
