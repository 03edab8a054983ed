"""What systemd would do with our units, as far as they ask for it; for hosts that don't run it.

The very lines of the units are used: the program, its folder, its environment, the words to the
service manager, what a stop ends. What a unit says that this does not do stands in `_LEFT_OUT`.
"""

from __future__ import annotations

import configparser
import resource
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

# Seconds, as a guard.
_PATIENCE = 120.0
_DONE = {
    *("Type", "NotifyAccess", "ExecStart", "WorkingDirectory", "EnvironmentFile", "Environment"),
    *("KillMode", "SendSIGKILL", "LimitNOFILE", "UMask", "StateDirectory", "StateDirectoryMode"),
}
_LEFT_OUT = {
    *("TasksMax", "LimitCORE", "ProtectHome", "RestrictRealtime"),
    # The machines' own unit is what the server's asks for beside it.
    *("Delegate", "OOMPolicy", "OOMScoreAdjust"),
    *("Restart", "RestartPreventExitStatus", "RestartSec", "TimeoutStartSec", "TimeoutStopSec"),
}


class ServiceManager:
    """Starts and stops services as `systemctl` is told; called with its words."""

    def __init__(
        self, root: Path, rooted: Callable[[str], str], environment: Mapping[str, str]
    ) -> None:
        """`rooted`: a unit's text with the paths that they are here. `environment`: of all units.

        Units are those of etc/systemd/system in `root`, as they are at a daemon-reload.
        """
        self._root = root
        self._rooted = rooted
        self._environment = dict(environment)
        self._units: dict[str, configparser.ConfigParser] = {}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.timers: set[str] = set()
        # What services said.
        self.log = root / "journal"

    def __call__(self, words: Sequence[str]) -> tuple[int, str]:
        """Does it; an exit status and a text, as systemctl would have."""
        match [*words]:
            case ["daemon-reload"]:
                self._read()
            case ["enable", "--now", *names]:
                for name in names:
                    self._enable(name)
                    self._start(name)
            case ["start", name]:
                self._start(name)
            case ["stop", name]:
                self.stop(name)
            case ["restart", name]:
                self.stop(name)
                self._start(name)
            case _:
                return 1, f"systemctl {shlex.join(words)} is not known here\n"
        return 0, ""

    def main_pid(self, name: str) -> int:
        """The process that the service is."""
        return self._processes[name].pid

    def stop(self, name: str) -> None:
        """SIGTERM to the service's main process alone, as KillMode=process says."""
        assert self._units[name]["Service"]["KillMode"] == "process"
        process = self._processes.pop(name)
        process.send_signal(signal.SIGTERM)
        assert process.wait(_PATIENCE) == 0, self.log.read_text()

    def close(self) -> None:
        """Ends what it has started."""
        for process in self._processes.values():
            process.terminate()
            process.wait(_PATIENCE)

    def _read(self) -> None:
        for path in (self._root / "etc/systemd/system").glob("*.*"):
            if not path.is_file():
                continue
            unit = configparser.ConfigParser(interpolation=None)
            unit.optionxform = str  # type: ignore[assignment,method-assign]
            unit.read_string(self._rooted(path.read_text(encoding="utf-8")))
            if "Service" in unit:
                assert {*unit["Service"]} <= _DONE | _LEFT_OUT, path
            self._units[path.name] = unit

    def _enable(self, name: str) -> None:
        assert self._units[name]["Install"]["WantedBy"]
        # systemd's own, where it is installed: it makes the links, and takes the unit.
        if (program := shutil.which("systemctl")) is not None:
            command = (program, "--quiet", f"--root={self._root}", "enable", name)
            subprocess.run(command, capture_output=True, check=True)

    def _start(self, name: str) -> None:
        if name.endswith(".timer"):
            assert name.replace(".timer", ".service") in self._units
            self.timers.add(name)
            return
        service = self._units[name]["Service"]
        with (
            tempfile.TemporaryDirectory(prefix="hf-manager-") as folder,
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
            self.log.open("ab") as log,
        ):
            manager.bind(f"{folder}/notify")
            process = subprocess.Popen(
                [*_limits(service), *shlex.split(service["ExecStart"])],
                cwd=self._folder(service),
                env=self._environment_of(service) | {"NOTIFY_SOCKET": f"{folder}/notify"},
                umask=int(service.get("UMask", "0022"), 8),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            if service["Type"] == "oneshot":
                assert process.wait(_PATIENCE) == 0, self.log.read_text()
                return
            assert service["Type"] == "notify"
            self._processes[name] = process
            manager.settimeout(0.1)
            waited = 0.0
            while True:
                try:
                    assert manager.recv(100) == b"READY=1"
                except TimeoutError:
                    waited += 0.1
                    assert process.poll() is None, self.log.read_text()
                    assert waited < _PATIENCE
                else:
                    return

    def _folder(self, service: Mapping[str, str]) -> Path:
        folder = Path(service["WorkingDirectory"])
        if (name := service.get("StateDirectory")) is not None:
            state = self._root / "var/lib" / name
            state.mkdir(parents=True, exist_ok=True)
            state.chmod(int(service["StateDirectoryMode"], 8))
            assert folder == state
        return folder

    def _environment_of(self, service: Mapping[str, str]) -> dict[str, str]:
        """systemd.exec(5): files over `Environment=`; one with - before it need not be there."""
        said = dict(pair.split("=", 1) for pair in shlex.split(service.get("Environment", "")))
        file = Path(service["EnvironmentFile"].removeprefix("-"))
        lines = file.read_text().splitlines() if file.exists() else []
        return self._environment | said | dict(line.split("=", 1) for line in lines if line)


def _limits(service: Mapping[str, str]) -> list[str]:
    """What becomes the service's program with its limits; root of a container has what it has."""
    if "LimitNOFILE" not in service:
        return []
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(int(service["LimitNOFILE"]), most)
    return ["prlimit", f"--nofile={wanted}:{wanted}"]
