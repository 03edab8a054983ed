"""A whole server with real machines, as a user has it: asked over HTTP, killed by SIGKILL."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from hyperfleet.failpoints import VARIABLE, Point
from hyperfleet.lifecycle import Status
from support import crash, server
from support.model.subject import ANOTHER, Act, Asked, Call, Known, Ran, Refused, kept_as
from support.server import Server
from support.soak import checks, reality
from support.zygote import Zygote

# Seconds are what anything takes; this is what a very busy host gets.
_PATIENCE = 60.0
_KILLED = -9


class RealMachines:
    """`subject.Subject` over HTTP. `kills` and `deaths` count what was done to it."""

    def __init__(self, images: Path, templates: Path, zygote: Zygote) -> None:
        self.kills = 0
        self.deaths = 0
        self._opened = contextlib.ExitStack()
        self._server = self._opened.enter_context(
            Server(
                images=images,
                templates=templates,
                zygote=zygote,
                HYPERFLEET_RESTART_WAIT_MS="1",
                HYPERFLEET_RESTART_LONGEST_WAIT_MS="1",
                HYPERFLEET_RESTART_TRIES="0",
            )
        )
        self._boots = 0

    def create(self, name: str, asked: Asked) -> Status | Refused:
        body = server.asked(name, mem_size_mib=112, **_fields(asked))
        return _status(self._ask("POST", "/machines", json=body))

    def call(self, call: Call, name: str) -> Status | Refused:
        return _status(self._ask("POST", f"/machines/{name}/{call}"))

    def delete(self, name: str, *, force: bool) -> Refused | None:
        params = {"force": "true"} if force else {}
        answer = self._ask("DELETE", f"/machines/{name}", params=params)
        return answer if isinstance(answer, Refused) else None

    def change(self, name: str, asked: Asked) -> Status | Refused:
        return _status(self._ask("PATCH", f"/machines/{name}", json=_fields(asked)))

    def snapshot(self, name: str, snapshot: str) -> bool | Refused:
        answer = self._ask("POST", f"/machines/{name}/snapshots", json={"name": snapshot})
        return answer if isinstance(answer, Refused) else bool(answer["memory"])

    def remove_snapshot(self, snapshot: str) -> None:
        gone = self._ask("DELETE", f"/snapshots/{snapshot}")
        assert not isinstance(gone, Refused), gone

    def restore(self, name: str, snapshot: str) -> Status | Refused:
        return _status(self._ask("POST", f"/machines/{name}/restore", json={"snapshot": snapshot}))

    def snapshots(self) -> set[str]:
        answer = self._ask("GET", "/snapshots")
        assert not isinstance(answer, Refused), answer
        return {one["name"] for one in answer["snapshots"]}

    def run(self, name: str, *argv: str) -> Ran | Refused:
        answer = self._ask("POST", f"/machines/{name}/exec", json={"cmd": list(argv)})
        if isinstance(answer, Refused):
            return answer
        return Ran(answer["exit_code"], answer["stdout"].encode())

    def die(self, name: str) -> None:
        pid = self._get(name)["pid"]
        os.kill(pid, signal.SIGKILL)
        self._until_another_life(name, pid)

    def power_off(self, name: str) -> None:
        pid = self._get(name)["pid"]
        # Its answer may or may not come before its end.
        self._ask("POST", f"/machines/{name}/exec", json={"cmd": ["poweroff", "-f"]})
        self._until_another_life(name, pid)

    def another_control_plane(self, *, orderly: bool) -> None:
        if orderly:
            assert self._server.stop() == 0
        else:
            self._kill()
        self._server.start()

    def all_die(self, *, reboot: bool) -> None:
        self._kill()
        for pid in reality.qemus_in(self._server.home):
            os.kill(pid, signal.SIGKILL)
            self.deaths += 1
        if reboot:
            self._in_another_boot()
        self._server.start()

    def killed_at(self, point: Point, act: Act, name: str) -> None:
        assert self._server.stop() == 0
        self._server.environment[VARIABLE] = point
        try:
            self._server.start()
        except AssertionError:
            # It came to the point by itself.
            assert self._server.wait() == _KILLED
            self.kills += 1
        else:
            with contextlib.suppress(httpx.TransportError):
                self._do(act, name)
            self._kill()
        finally:
            del self._server.environment[VARIABLE]
        self._server.start()

    def settled(self, name: str) -> Status | None:
        deadline = time.monotonic() + _PATIENCE
        while True:
            answer = self._ask("GET", f"/machines/{name}")
            if isinstance(answer, Refused):
                assert answer.code == "NOT_FOUND", answer
                return None
            if not checks.under_way(answer):
                return Status(answer["status"])
            assert time.monotonic() < deadline, answer
            time.sleep(0.02)

    def check(self, known: Mapping[str, Known]) -> None:
        machines = {one["name"]: one for one in crash.agreed(self._server).machines}
        assert machines.keys() == known.keys()
        for name, one in known.items():
            machine = machines[name]
            fields = _fields(one.asked)
            assert {key: machine[key] for key in fields} == fields
            assert one.status is not Status.FAILED or machine["error_message"]

    def close(self) -> None:
        self._opened.close()

    def _kill(self) -> None:
        """Its end, which it may have come to by itself."""
        assert self._server.kill() == _KILLED
        self.kills += 1

    def _in_another_boot(self) -> None:
        """What the record has of the host's boot is of one before this."""
        self._boots += 1
        record = sqlite3.connect(self._server.folder / "hyperfleet.db")
        with contextlib.closing(record), record:
            record.execute(
                "UPDATE machines SET host_boot = ? WHERE host_boot IS NOT NULL",
                (f"boot-{self._boots}",),
            )

    def _do(self, act: Act, name: str) -> None:
        match act:
            case "snapshot":
                self.snapshot(name, ANOTHER)
            case "restore":
                self.restore(name, kept_as(name))
            case "change":
                self._ask("PATCH", f"/machines/{name}", json={"labels": {"a": "b"}})
            case "delete":
                self.delete(name, force=True)
            case "wake":
                self.call("start", name)
            case _:
                self.call(act, name)

    def _get(self, name: str) -> dict[str, Any]:
        machine: dict[str, Any] = self._ask("GET", f"/machines/{name}")
        return machine

    def _until_another_life(self, name: str, pid: int) -> None:
        """Its death has been seen; then whatever follows it."""
        self.deaths += 1
        deadline = time.monotonic() + _PATIENCE
        while self._get(name)["pid"] == pid:
            assert time.monotonic() < deadline, f"{name}'s process {pid} has ended unseen"
            time.sleep(0.02)
        self.settled(name)

    def _ask(self, method: str, path: str, **more: Any) -> Any:
        """The answer's body; `Refused` for an error."""
        answer = self._server.api.request(method, path, **more)
        if answer.is_success:
            return answer.json() if answer.content else None
        error = answer.json()["error"]
        return Refused(error["code"], error["message"])


def _fields(asked: Asked) -> dict[str, Any]:
    return {
        "exposed_ports": list(asked.ports),
        "restart": str(asked.restart),
        "autostart": asked.autostart,
    }


def _status(answer: Any) -> Status | Refused:
    return answer if isinstance(answer, Refused) else Status(answer["status"])
