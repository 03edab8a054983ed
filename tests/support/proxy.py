"""A data plane alone, fed by a file of routes: what stands between a client and a server here."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from hyperfleet import binaries
from hyperfleet.errors import SetupError
from support.need import Need

# Seconds, as a guard.
_END = 30.0


def machine(
    name: str,
    ports: dict[int, int],
    *,
    machine_id: str | None = None,
    status: str = "running",
    options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """A machine of the file; `ports` are those it exposes, and the loopback's where they lead.

    `options`: of each of them, as in the API's `port_options`.
    """
    return {
        "id": machine_id or f"id-{name}",
        "name": name,
        "status": status,
        "ports": [
            {"port": port, "upstream": f"127.0.0.1:{upstream}", **(options or {})}
            for port, upstream in ports.items()
        ],
    }


def binary(need: Need) -> Path:
    """`hyperfleet-proxy` as it was built."""
    try:
        return binaries.proxy()
    except SetupError as error:
        need.that(False, str(error))
        raise


class Proxy:
    """`hyperfleet-proxy` on a free port of 127.0.0.1 while the context lasts.

    `folder` takes its files; `host_suffix` as in PROXY_HOST_SUFFIX.
    """

    def __init__(
        self, need: Need, folder: Path, machines: Sequence[dict[str, Any]], host_suffix: str
    ) -> None:
        routes = folder / "routes.json"
        routes.write_text(json.dumps({"machines": machines}))
        options = ("--listen", "127.0.0.1:0", "--workers", "1", "--host-suffix", host_suffix)
        self._command: list[str | Path] = [binary(need), *options, "--routes", routes]
        self.host_suffix = host_suffix
        self.port = 0

    def path(self, machine: str, port: int) -> str:
        """The address of a machine's port by path, without its last slash."""
        return f"http://127.0.0.1:{self.port}/proxy/{machine}/{port}"

    def host(self, machine: str, port: int) -> str:
        """The same by host."""
        return f"http://{machine}-{port}{self.host_suffix}:{self.port}"

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline().rpartition(":")[2])
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:
            self._process.kill()
            self._process.wait(_END)
