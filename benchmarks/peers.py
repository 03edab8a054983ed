"""Who is measured, and how each is told to do the same job.

Route by path prefix, strip it, add the same fields, keep connections to the upstream. One worker
each.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

CONFIGS = Path(__file__).parent / "configs"
MACHINE = "abc123def456"
PREFIX = f"/proxy/{MACHINE}/80"
HOST = "127.0.0.1"
OURS = "hyperfleet"
BEFORE = "hyperfleet-before"
CONTROL = "control"


@dataclass(frozen=True)
class Place:
    """Where a proxy listens and what it forwards to, all on the loopback address."""

    folder: Path
    port: int
    upstream_port: int
    descriptors: int
    """File descriptors that a process may have."""


@dataclass(frozen=True)
class Peer:
    """A proxy that can be measured."""

    key: str
    title: str
    program: Path
    version: tuple[str, ...]
    """Arguments that make it tell its version."""
    command: Callable[[Peer, Place], list[str]]
    """Writes the configuration into the place's folder; how the program is to be run with it."""
    more: str = ""
    """Further lines of the configuration."""
    prefix: str = PREFIX
    """Before a request's path; empty when it passes paths on as they are."""
    environment: dict[str, str] = field(default_factory=dict)
    workers: int = 1
    under: tuple[str, ...] = ()
    """Words before the command: a program that watches it. `@folder@` is the place's."""
    options: tuple[str, ...] = ()
    """Further options of ours; `@folder@` as above."""
    in_every_round: bool = True
    """Otherwise in the first rounds only: far from any target, it is there to be seen."""

    def version_text(self) -> str:
        """What it calls itself, a number with dots."""
        run = subprocess.run(
            [self.program, *self.version], capture_output=True, text=True, check=False, timeout=30
        )
        # Envoy begins with its own path, which may hold the numbers of others.
        said = (run.stdout + run.stderr).replace(str(self.program), "")
        found = re.search(r"\d+\.\d+(\.\d+)*", said)
        return found[0] if found else "unknown"


def filled(template: str, values: dict[str, object]) -> str:
    """The template with each `@name@` replaced.

    Raises:
        KeyError: a name that has no value.
    """
    return re.sub(r"@([a-z_]+)@", lambda match: str(values[match[1]]), template)


def _write(peer: Peer, place: Place, template: str, name: str) -> Path:
    values: dict[str, object] = {
        "name": peer.title,
        "folder": place.folder,
        "host": HOST,
        "port": place.port,
        "listen": f"{HOST}:{place.port}",
        "upstream": f"{HOST}:{place.upstream_port}",
        "upstream_host": HOST,
        "upstream_port": place.upstream_port,
        "prefix": PREFIX,
        "prefix_length": len(PREFIX),
        "machine": MACHINE,
        "descriptors": place.descriptors,
        # HAProxy wants two descriptors for each, and some for itself.
        "connections": (place.descriptors - 200) // 2,
        "more": peer.more,
    }
    path = place.folder / name
    path.write_text(filled((CONFIGS / template).read_text(), values))
    return path


def _ours(peer: Peer, place: Place) -> list[str]:
    port = {"port": 80, "upstream": f"{HOST}:{place.upstream_port}"}
    machine = {"id": MACHINE, "name": "web", "status": "running", "ports": [port]}
    routes = place.folder / "routes.json"
    routes.write_text(json.dumps({"machines": [machine]}))
    options = [filled(word, {"folder": place.folder}) for word in peer.options]
    return [*_ours_listening(peer, place), "--routes", str(routes), *options]


def _ours_controlled(peer: Peer, place: Place) -> list[str]:
    control = str(place.folder / CONTROL)
    under = [filled(word, {"folder": place.folder}) for word in peer.under]
    return [*under, *_ours_listening(peer, place), "--control", control, *peer.options]


def _ours_listening(peer: Peer, place: Place) -> list[str]:
    # All connections of the benchmark go to one machine: its limits are out of the way.
    limits = ["--max-machine-connections", "100000", "--max-machine-requests", "100000"]
    listen = f"{HOST}:{place.port}"
    return [str(peer.program), "--listen", listen, "--workers", str(peer.workers), *limits]


def _nginx(peer: Peer, place: Place) -> list[str]:
    config = _write(peer, place, "nginx.conf", "nginx.conf")
    return [str(peer.program), "-p", str(place.folder), "-e", "stderr", "-c", str(config)]


def _haproxy(peer: Peer, place: Place) -> list[str]:
    config = _write(peer, place, "haproxy.cfg", "haproxy.cfg")
    return [str(peer.program), "-db", "-q", "-f", str(config)]


def _haproxy_tcp(peer: Peer, place: Place) -> list[str]:
    config = _write(peer, place, "haproxy-tcp.cfg", "haproxy.cfg")
    return [str(peer.program), "-db", "-q", "-f", str(config)]


def _envoy(peer: Peer, place: Place) -> list[str]:
    config = _write(peer, place, "envoy.yaml", "envoy.yaml")
    quiet = ["--log-level", "error", "--disable-hot-restart"]
    return [str(peer.program), "--concurrency", "1", *quiet, "-c", str(config)]


def _traefik(peer: Peer, place: Place) -> list[str]:
    _write(peer, place, "traefik-routes.yaml", "routes.yaml")
    config = _write(peer, place, "traefik.yaml", "traefik.yaml")
    return [str(peer.program), f"--configFile={config}"]


def _caddy(peer: Peer, place: Place) -> list[str]:
    config = _write(peer, place, "Caddyfile", "Caddyfile")
    return [str(peer.program), "run", "--adapter", "caddyfile", "--config", str(config)]


_NGINX_64K = "proxy_buffer_size 64k; proxy_buffers 8 64k; client_body_buffer_size 64k;"
_ONE_THREAD = {"GOMAXPROCS": "1"}


def known(root: Path, before: Path | None = None) -> list[Peer]:
    """Every peer, ours first. `before`: another build of ours to compare with.

    Args:
        root: the checkout, whose release build is ours.
        before: its program.
    """
    release = root / "target" / "release" / "hyperfleet-proxy"
    ours = Peer(OURS, "Hyperfleet", release, ("--version",), _ours)
    nginx = _system("nginx")
    haproxy = _system("haproxy")
    wheels = root / ".bench-venv"
    envoy = next(wheels.glob("lib/python*/site-packages/envoy/_bin/envoy"), wheels / "envoy")
    peers = [
        ours,
        Peer("nginx", "nginx", nginx, ("-v",), _nginx),
        Peer("nginx-64k", "nginx, 64k buffers", nginx, ("-v",), _nginx, more=_NGINX_64K),
        Peer("haproxy", "HAProxy", haproxy, ("-v",), _haproxy),
        Peer(
            "haproxy-64k",
            "HAProxy, 64k buffers",
            haproxy,
            ("-v",),
            _haproxy,
            more="tune.bufsize 65536",
        ),
        Peer(
            "haproxy-tcp",
            "HAProxy, TCP mode",
            haproxy,
            ("-v",),
            _haproxy_tcp,
            prefix="",
            in_every_round=False,
        ),
        Peer("envoy", "Envoy", envoy, ("--version",), _envoy, in_every_round=False),
        Peer(
            "traefik",
            "Traefik",
            wheels / "bin" / "traefik",
            ("version",),
            _traefik,
            environment=_ONE_THREAD,
            in_every_round=False,
        ),
        Peer(
            "caddy",
            "Caddy",
            wheels / "bin" / "caddy",
            ("version",),
            _caddy,
            environment=_ONE_THREAD,
            in_every_round=False,
        ),
    ]
    if before is not None:
        peers.insert(1, Peer(BEFORE, "Hyperfleet, before", before, ("--version",), _ours))
    return peers


def controlled(ours: Peer, under: tuple[str, ...] = (), options: tuple[str, ...] = ()) -> Peer:
    """Ours, with routes from whoever connects to CONTROL in its folder."""
    return replace(ours, command=_ours_controlled, under=under, options=options)


def chosen(peers: list[Peer], only: str | None) -> list[Peer]:
    """The peers whose keys `only` names, between commas, and ours; all without it.

    Raises:
        ValueError: a key that there is not.
    """
    if not only:
        return peers
    keys = only.split(",")
    if unknown := set(keys) - {peer.key for peer in peers}:
        msg = f"no peer {', '.join(sorted(unknown))}; there are: {', '.join(p.key for p in peers)}"
        raise ValueError(msg)
    return [peer for peer in peers if peer.key in (*keys, OURS, BEFORE)]


def _system(name: str) -> Path:
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    return Path(shutil.which(name, path=path) or f"/usr/sbin/{name}")
