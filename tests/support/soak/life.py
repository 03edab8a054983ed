"""One machine's user: does this and that with it, and knows what must come of it."""

from __future__ import annotations

import random
from typing import Any

import httpx

from support import plain, witness
from support.server import Server
from support.soak.kills import Disturbance
from support.soak.tally import Tally

PORTS = (80, 81)
_BURST = 25
_ANSWER_S = 120.0
_OK, _FORBIDDEN, _NOT_FOUND = 200, 403, 404
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
        self._other = f"{name}-copy"
        """A machine made of a snapshot of this one, while one is tried."""
        self._kept = f"{name}-kept"
        """The snapshot."""
        self._disturbed = Disturbance()
        acts = {
            self.ask: 30,
            self._exec: 10,
            self._expose: 10,
            self._pause: 2,
            self._sleep: 2,
            self._put_back: 2,
            self._copy: 2,
            self._restart: 1,
            self._cycle: 1,
            self._renew: 1,
        }
        self._acts, self._weights = tuple(acts), tuple(acts.values())
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
                act = self._chance.choices(self._acts, weights=self._weights)[0]
                act()
                self._tally.done[act.__name__.strip("_")] += 1
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
        if self._call("GET", f"/machines/{self.name}")["status"] == "paused":
            self._call("POST", f"/machines/{self.name}/resume")
        self._wake()
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

    def _wake(self) -> None:
        self._started(self._call("POST", f"/machines/{self.name}/start"))

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

    def _pause(self) -> None:
        """Nothing of it is another one afterwards, and it serves."""
        self.runs = False
        self._call("POST", f"/machines/{self.name}/pause")
        self._call("POST", f"/machines/{self.name}/resume")
        self.runs = True
        self.ask()

    def _sleep(self) -> None:
        """Its servers and its memory are there again."""
        word = self._noted()
        self.down()
        self._call("POST", f"/machines/{self.name}/sleep")
        self._wake()
        self.serves = True
        self._must_know(word, self.name)
        self.ask()

    def _put_back(self) -> None:
        """It is what it was in the midst of its work, whatever it did since."""
        word = self._snapshot()
        self._noted()
        self.down()
        self._call("POST", f"/machines/{self.name}/restore", {"snapshot": self._kept})
        self._wake()
        self.serves = True
        self._must_know(word, self.name)
        self._must_count(self.name)
        self._run(witness.END)
        self.ask()
        self._tidy_up()

    def _copy(self) -> None:
        """Another machine goes on from there; this one has noticed nothing."""
        word = self._snapshot()
        self._call("POST", f"/snapshots/{self._kept}/clone", {"name": self._other}, wanted=201)
        later = self._noted()
        self._call("POST", f"/machines/{self._other}/start")
        self._must_know(word, self._other)
        self._must_know(later, self.name)
        for name in (self._other, self.name):
            self._must_count(name)
        self._run(witness.END)
        self.ask()
        self._tidy_up()

    def _snapshot(self) -> str:
        """Makes one while the machine works; what it knew then."""
        self._tidy_up()
        self._run(witness.BEGIN)
        word = self._noted()
        path = f"/machines/{self.name}/snapshots"
        self._call("POST", path, {"name": self._kept}, wanted=201)
        return word

    def _noted(self) -> str:
        """A word that is in its memory and on its disk from now on."""
        word = f"{self._chance.getrandbits(64):016x}"
        self._run(f"echo {word} | tee /word > /dev/shm/word")
        return word

    def _must_know(self, word: str, name: str) -> None:
        said = self._run("cat /word /dev/shm/word", name)
        if said != f"{word}\n{word}\n":
            self._wrong(f"{name} knows {said!r} instead of {word!r}")

    def _must_count(self, name: str) -> None:
        if said := self._run(witness.SOUND, name):
            self._wrong(f"the memory of {name} is not of one moment: {said!r}")

    def _tidy_up(self) -> None:
        """Of what is kept of it, and made of that, nothing is left, also of what was cut off."""
        for path in (f"/machines/{self._other}?force=true", f"/snapshots/{self._kept}"):
            self._call("DELETE", path, wanted=(204, _NOT_FOUND))

    def down(self) -> None:
        """It does not serve, or will not any more."""
        self.runs = self.serves = False
        self.pid = None
        self._proved.clear()

    def _started(self, machine: dict[str, Any]) -> None:
        self._tally.started += 1
        self.runs, self.pid = True, machine["pid"]
        self._proved.clear()

    def _run(self, script: str, name: str | None = None) -> str:
        self._tally.execs += 1
        body = {"cmd": ["sh", "-c", script]}
        result = self._call("POST", f"/machines/{name or self.name}/exec", body)
        if result["exit_code"] != 0:
            self._failed(f"exec: {result}", machine_only=True, of=name)
        said: str = result["stdout"]
        return said

    def _call(
        self, method: str, path: str, body: Any = None, *, wanted: int | tuple[int, ...] = _OK
    ) -> Any:
        self._tally.calls += 1
        of = self._other if path.startswith(f"/machines/{self._other}") else None
        assert self._api is not None
        try:
            answer = self._api.request(method, path, json=body)
        except (httpx.TransportError, RuntimeError) as error:
            self._failed(f"{method} {path}: {error!r}", api=True, of=of)
        if answer.status_code not in (wanted if isinstance(wanted, tuple) else (wanted,)):
            what = f"{method} {path}: {answer.status_code} {answer.text[:200]}"
            self._failed(what, api=answer.status_code in _AWAY, of=of)
        return answer.json() if answer.content else None

    def _failed(
        self,
        what: str,
        *,
        api: bool = False,
        proxy: bool = False,
        machine_only: bool = False,
        of: str | None = None,
    ) -> Any:
        """Ends the act; a wrong answer, unless what it needed (of `of`, or this one) was killed.

        Raises:
            BrokenOffError: always.
        """
        killed = (of or self.name) in self._disturbed.machines
        excused = (
            (api and self._disturbed.control_plane)
            or (proxy and self._disturbed.data_plane)
            or ((api or proxy or machine_only) and killed)
        )
        if not excused:
            self._wrong(what)
        raise BrokenOffError

    def _wrong(self, what: str) -> None:
        self._tally.wrong.append(f"{self.name}: {what}")
