"""One machine's user: does this and that with it, and knows what must come of it."""

from __future__ import annotations

import random
from typing import Any

import httpx

from support import plain
from support.server import Server
from support.soak.kills import Disturbance
from support.soak.tally import Tally

PORTS = (80, 81)
_BURST = 25
_ANSWER_S = 120.0
_OK, _FORBIDDEN = 200, 403
# What a proxy or an API may say of a thing that has just been killed.
_AWAY = frozenset({409, 500, 502, 503, 504})


class BrokenOffError(Exception):
    """What was being done was cut off by a kill; what became of it is to be seen."""


class Life:
    """The machine called `name`. One thread uses it."""

    def __init__(self, server: Server, name: str, seed: int, tally: Tally) -> None:
        self.name = name
        self.exists = False
        self.runs = False
        """Whether it should; False, too, where that is to be seen."""
        self.serves = False
        self.pid: int | None = None
        self.sure = True
        """Nothing was cut off: what is said here is what must be."""
        self.exposed: tuple[int, ...] = PORTS
        self._server = server
        self._chance = random.Random(seed)  # noqa: S311 - repeatable
        self._tally = tally
        self._proved: set[int] = set()
        self._token = ""
        self._disturbed = Disturbance()
        self._proxy = httpx.Client(
            base_url=server.proxy_url, verify=plain.NOBODY, timeout=_ANSWER_S
        )
        self._api: httpx.Client | None = None

    def round(self, disturbed: Disturbance) -> None:
        """Act after act until the round is over, or a kill cuts one off."""
        self._disturbed = disturbed
        try:
            while not disturbed.over.is_set():
                if not self.runs:
                    self.bring_up()
                act = self._chance.choices(
                    (self.ask, self._exec, self._expose, self._restart, self._cycle, self._renew),
                    weights=(30, 10, 10, 1, 1, 1),
                )[0]
                act()
        except BrokenOffError:
            self.sure = False

    def open(self, disturbed: Disturbance) -> None:
        """Another control plane is there: a new client for it."""
        self._disturbed = disturbed
        self.close_api()
        self._api = httpx.Client(
            base_url=self._server.api_url,
            headers={"Authorization": f"Bearer {self._server.key}"},
            verify=plain.NOBODY,
            timeout=_ANSWER_S,
        )

    def close_api(self) -> None:
        """Lets go of the API."""
        if self._api is not None:
            self._api.close()
            self._api = None

    def close(self) -> None:
        """Lets go of API and proxy."""
        self.close_api()
        self._proxy.close()

    def bring_up(self) -> None:
        """Made if it is not there, started, its servers with a page of this start's own."""
        if not self.exists:
            body = {
                "name": self.name,
                "vcpu_count": 1,
                "mem_size_mib": 112,
                "rootfs_path": ".hyperfleet/minimal-rootfs.ext4",
                "exposed_ports": list(self.exposed),
                "restart": self._chance.choice(("never", "on-failure")),
            }
            self._call("POST", "/machines", body, wanted=201)
            self.exists = True
        self._started(self._call("POST", f"/machines/{self.name}/start"))
        self.serve()

    def serve(self) -> None:
        """Its servers, which a start does not bring."""
        self._token = f"{self.name} {self._chance.getrandbits(64):016x}"
        # In vain where one serves on: that it does, the requests show.
        servers = " ".join(f"httpd -p {port} -h /www 2>/dev/null;" for port in PORTS)
        self._run(f"mkdir -p /www && echo '{self._token}' > /www/index.html; {servers} true")
        self.serves = True

    def ask(self) -> None:
        """A burst of requests; every answer must be this start's page, or a refusal."""
        for _ in range(_BURST):
            port = self._chance.choice(PORTS)
            self._tally.requests += 1
            try:
                answer = self._proxy.get(f"/proxy/{self.name}/{port}/")
            except httpx.TransportError as error:
                self._failed(f"port {port} through the proxy: {error!r}", proxy=True)
            wanted = _OK if port in self.exposed else _FORBIDDEN
            if answer.status_code == _OK and wanted == _OK and answer.text == f"{self._token}\n":
                self._proved.add(port)
            elif answer.status_code == wanted == _FORBIDDEN:
                continue
            elif answer.status_code in _AWAY and port not in self._proved:
                # Only the control plane could say that there is a server by now.
                what = f"port {port}, not seen before: {answer.status_code}"
                self._failed(what, proxy=True, api=True)
            else:
                what = f"port {port} of {self.exposed}: {answer.status_code} {answer.text[:100]!r}"
                self._failed(what, proxy=answer.status_code in _AWAY)

    def _exec(self) -> None:
        word = f"{self._chance.getrandbits(64):016x}"
        said = self._run(f"echo {word}")
        if said != f"{word}\n":
            self._wrong(f"exec said {said!r} instead of {word!r}")

    def _expose(self) -> None:
        exposed = self._chance.choice(((80,), (81,), PORTS))
        self._call("PATCH", f"/machines/{self.name}", {"exposed_ports": list(exposed)})
        self._proved &= set(self.exposed) & set(exposed)
        self.exposed = exposed
        self.ask()

    def _restart(self) -> None:
        self.down()
        self._started(self._call("POST", f"/machines/{self.name}/restart"))
        self.serve()

    def _cycle(self) -> None:
        self.down()
        self._call("POST", f"/machines/{self.name}/stop")
        self.bring_up()

    def _renew(self) -> None:
        self.down()
        self._call("DELETE", f"/machines/{self.name}?force=true", wanted=204)
        self.exists = False
        self.bring_up()

    def down(self) -> None:
        """It does not serve, or will not any more."""
        self.runs = self.serves = False
        self.pid = None
        self._proved.clear()

    def _started(self, machine: dict[str, Any]) -> None:
        self._tally.started += 1
        self.runs, self.pid = True, machine["pid"]
        self._proved.clear()

    def _run(self, script: str) -> str:
        self._tally.execs += 1
        body = {"cmd": ["sh", "-c", script]}
        result = self._call("POST", f"/machines/{self.name}/exec", body)
        if result["exit_code"] != 0:
            self._failed(f"exec: {result}", machine_only=True)
        said: str = result["stdout"]
        return said

    def _call(self, method: str, path: str, body: Any = None, *, wanted: int = 200) -> Any:
        self._tally.calls += 1
        assert self._api is not None
        try:
            answer = self._api.request(method, path, json=body)
        except (httpx.TransportError, RuntimeError) as error:
            self._failed(f"{method} {path}: {error!r}", api=True)
        if answer.status_code != wanted:
            what = f"{method} {path}: {answer.status_code} {answer.text[:200]}"
            self._failed(what, api=answer.status_code in _AWAY)
        return answer.json() if answer.content else None

    def _failed(
        self, what: str, *, api: bool = False, proxy: bool = False, machine_only: bool = False
    ) -> Any:
        """Ends the act; it is a wrong answer unless what it needed has been killed.

        Raises:
            BrokenOffError: always.
        """
        excused = (
            (api and self._disturbed.control_plane)
            or (proxy and self._disturbed.data_plane)
            or ((api or proxy or machine_only) and self.name in self._disturbed.machines)
        )
        if not excused:
            self._wrong(what)
        raise BrokenOffError

    def _wrong(self, what: str) -> None:
        self._tally.wrong.append(f"{self.name}: {what}")
