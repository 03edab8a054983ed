"""The rounds: load, a kill in the midst of it, and then everything is looked over."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

from support.server import Server
from support.soak import checks, kills, reality
from support.soak.kills import Disturbance
from support.soak.life import BrokenOffError, Life
from support.soak.tally import Tally

# A kill falls this far into a round, and load goes on for this long after it, seconds.
_LATEST_KILL_S = 8.0
_LONGEST_AFTER_S = 4.0
_SETTLES_S = 120.0


def _to_stderr(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def soak(
    images: Path,
    *,
    seconds: float,
    machines: int,
    seed: int,
    say: Callable[[str], None] = _to_stderr,
    kinds: tuple[str, ...] = kills.KINDS,
    least_rounds: int = 1,
) -> Tally:
    """Runs for so long, and at least so many rounds; the kinds of kills come in turn, shuffled."""
    tally = Tally(seed)
    server = Server(
        images=images,
        LOG_LEVEL="warning",
        HYPERFLEET_NETWORK="user",
        HYPERFLEET_BOOTS_AT_ONCE="2",
        HYPERFLEET_RESTART_WAIT_MS="200",
        HYPERFLEET_RESTART_TRIES="0",
        HYPERFLEET_CPU_OVERCOMMIT_PERCENT="10000",
    )
    try:
        server.start()
        _Soak(server, machines, tally, say).run(seconds, kinds, least_rounds)
    finally:
        server.close()
    return tally


class _Soak:
    def __init__(
        self, server: Server, machines: int, tally: Tally, say: Callable[[str], None]
    ) -> None:
        self._server = server
        self._tally = tally
        self._say = say
        self._chance = random.Random(tally.seed)  # noqa: S311 - repeatable
        self._lives = [
            Life(server, f"m{number}", self._chance.getrandbits(64), tally)
            for number in range(machines)
        ]

    def run(self, seconds: float, kinds: tuple[str, ...], least_rounds: int) -> None:
        """All rounds, and the end."""
        end = time.monotonic() + seconds
        bag: list[str] = []
        number = 0
        with ThreadPoolExecutor(len(self._lives)) as pool:
            while number < least_rounds or time.monotonic() < end:
                number += 1
                if not bag:
                    bag = self._chance.sample(kinds, len(kinds))
                self._round(pool, number, bag.pop())
                if len(self._tally.wrong) + len(self._tally.lost) > 100:
                    self._say("given up: too much is wrong")
                    break
        for life in self._lives:
            life.close()
        self._finish()

    def _round(self, pool: ThreadPoolExecutor, number: int, kind: str) -> None:
        disturbed = Disturbance()
        for life in self._lives:
            life.open(disturbed)
        working = [pool.submit(life.round, disturbed) for life in self._lives]
        # Load must be under way: a moment of the round's own, not a wait for anything.
        time.sleep(self._chance.uniform(0.5, _LATEST_KILL_S))
        if kills.kill(self._server, kind, disturbed, self._chance):
            self._tally.killed[kind] += 1
        time.sleep(self._chance.uniform(0.5, _LONGEST_AFTER_S))
        disturbed.over.set()
        for one in working:
            one.result()
        began = time.monotonic()
        if disturbed.control_plane:
            self._server.start()
        list(pool.map(lambda life: self._settle(life, disturbed), self._lives))
        self._look_over(number)
        self._say(
            f"round {number}: {kind}, settled in {time.monotonic() - began:.1f} s; "
            f"lost {len(self._tally.lost)}, wrong {len(self._tally.wrong)}, "
            f"left {len(self._tally.leftovers)}, requests {self._tally.requests}"
        )

    def _settle(self, life: Life, disturbed: Disturbance) -> None:
        """Until nothing of it is under way; then it must be as its user knows, and serve."""
        life.open(Disturbance())
        machine = self._at_rest(life.name)
        if machine is None:
            if life.exists and life.sure:
                self._tally.lost.append(f"{life.name}: the record has forgotten it")
            life.exists = False
            life.down()
        else:
            life.exists = True
            killed = life.name in disturbed.machines
            runs = machine["status"] == "running"
            if life.sure and life.runs and not runs and not killed:
                self._tally.lost.append(
                    f"{life.name}: {machine['status']} {machine['error_message']}"
                )
            if killed and not runs and not machine["error_message"]:
                self._tally.lost.append(f"{life.name}: {machine['status']} and does not say why")
            life.exposed = tuple(machine["exposed_ports"])
            same = runs and machine["pid"] == life.pid and life.serves
            if not same:
                life.down()
            life.runs, life.pid = runs, machine["pid"]
            if (same and (disturbed.control_plane or disturbed.data_plane)) or (killed and runs):
                self._tally.found_again += 1
        life.sure = True
        try:
            if not life.runs:
                life.bring_up()
            elif not life.serves:
                life.serve()
            life.ask()
        except BrokenOffError:
            # It was told as a wrong answer: nothing is disturbed any more.
            life.sure = False

    def _at_rest(self, name: str) -> dict[str, Any] | None:
        limit = time.monotonic() + _SETTLES_S
        while True:
            answer = self._server.api.get(f"/machines/{name}")
            if answer.status_code == httpx.codes.NOT_FOUND:
                return None
            machine: dict[str, Any] = answer.json()
            died = machine["status"] == "running" and machine["pid"] not in reality.qemus_in(
                self._server.home
            )
            if not (checks.under_way(machine) or died):
                return machine
            if time.monotonic() > limit:
                self._tally.lost.append(f"{name}: still {machine['status']}")
                return machine
            query = {"status": "running", "timeout": "5"}
            self._server.api.get(f"/machines/{name}/wait", params=query)

    def _look_over(self, number: int) -> None:
        seen = reality.seen(self._server)
        self._tally.lost += [f"round {number}: {one}" for one in checks.disagreements(seen)]
        self._tally.leftovers += [f"round {number}: {one}" for one in checks.leftovers(seen)]
        planes = reality.data_planes_in(self._server.home)
        if len(planes) != 1:
            self._tally.leftovers.append(f"round {number}: data planes {planes}")
        for of, pids in (("control plane", [self._server.pid]), ("data plane", planes)):
            for pid in pids:
                self._tally.grew(of, pid, reality.memory(pid))

    def _finish(self) -> None:
        """Everything is deleted; nothing may be left."""
        for machine in reality.listed(self._server):
            answer = self._server.api.delete(f"/machines/{machine['id']}?force=true")
            if answer.status_code != httpx.codes.NO_CONTENT:
                self._tally.wrong.append(f"{machine['name']}: delete: {answer.text}")
        for name in reality.seen(self._server).snapshots:
            answer = self._server.api.delete(f"/snapshots/{name}")
            if answer.status_code != httpx.codes.NO_CONTENT:
                self._tally.wrong.append(f"snapshot {name}: delete: {answer.text}")
        seen = reality.seen(self._server)
        self._tally.leftovers += [f"at the end: {one}" for one in checks.leftovers(seen)]
        if self._server.stop() != 0:
            self._tally.wrong.append("the control plane did not end in order")
        self._tally.leftovers += [f"at the end: {line}" for line in self._server.processes()]
