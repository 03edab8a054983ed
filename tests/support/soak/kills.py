"""What is killed, by real signals, and what may therefore fail."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
from dataclasses import dataclass, field

from support.server import Server
from support.soak import reality

CONTROL_PLANE, DATA_PLANE, QEMU = "control plane", "data plane", "QEMU"
KINDS = (CONTROL_PLANE, DATA_PLANE, QEMU)


@dataclass
class Disturbance:
    """What has been killed in this round; set before the signal is sent."""

    control_plane: bool = False
    data_plane: bool = False
    machines: set[str] = field(default_factory=set)
    over: threading.Event = field(default_factory=threading.Event)
    """Nothing new is to be begun."""


def kill(server: Server, kind: str, disturbed: Disturbance, chance: random.Random) -> bool:
    """Kills one of that kind; False when there was nothing to kill at this moment."""
    if kind == CONTROL_PLANE:
        disturbed.control_plane = True
        server.kill()
        return True
    if kind == DATA_PLANE:
        pids = reality.data_planes_in(server.home)
        disturbed.data_plane = bool(pids)
        killed = [_signal(pid) for pid in pids]
        return any(killed)
    names = {machine["id"]: machine["name"] for machine in reality.listed(server)}
    qemus = reality.qemus_in(server.home)
    there = sorted((names[owner], pid) for pid, owner in qemus.items() if owner in names)
    if not there:
        return False
    name, pid = chance.choice(there)
    disturbed.machines.add(name)
    return _signal(pid)


def _signal(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
        return True
    return False
