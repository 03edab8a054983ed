"""The command line on machines, against the whole server; the machines are fakes.

What needs a real process: tests/e2e/test_run.py, tests/e2e/test_exec_stream.py.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from hyperfleet.cli import arguments
from hyperfleet.client import EgressRule
from support import plain, proxy
from support.need import Need
from support.server import END, Server
from support.zygote import Zygote

FAILED, USAGE = 1, 2


@pytest.fixture(scope="module")
def shared(need: Need, zygote: Zygote) -> Iterator[Server]:
    proxy.binary(need)
    with Server(zygote=zygote, HYPERFLEET_VMM="fake") as running:
        yield running


@pytest.fixture
def server(shared: Server) -> Iterator[Server]:
    """Without machines, snapshots and disks, before and after."""
    yield shared
    for machine in shared.api.get("/machines").json()["machines"]:
        shared.api.delete(f"/machines/{machine['id']}?force=true")
    for kind in ("snapshots", "disks"):
        for one in shared.api.get(f"/{kind}").json()[kind]:
            shared.api.delete(f"/{kind}/{one['name']}")


def said(server: Server, *arguments: str) -> str:
    """What a command that must go well prints."""
    done = server.run(*arguments, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def shown(server: Server, *arguments: str) -> Any:
    return json.loads(said(server, *arguments, "--json"))


def test_a_machines_life(server: Server) -> None:
    made = said(
        server, "create", "web", "-c", "2", "-m", "1G", "-p", "80", "-p", "81", "-e", "A=b=c",
        "-l", "tier=front", "--restart", "on-failure", "--egress", "none",
    )  # fmt: skip
    assert made == "web is made; start it with `hyperfleet start web`.\n"
    machine = shown(server, "show", "web")
    assert (machine["vcpu_count"], machine["mem_size_mib"]) == (2, 1024)
    assert (machine["exposed_ports"], machine["labels"]) == ([80, 81], {"tier": "front"})
    assert machine["egress"] == "none"
    url = f"{server.proxy_url.replace('127.0.0.1', 'localhost')}/proxy/{machine['id']}/80/"
    lines = said(server, "start", "web").splitlines()
    assert lines[:2] == ["web is running.", f"  port 80: {url}"]
    serves = 'echo "$A" > /index.html; httpd -p 80 -h /'
    assert said(server, "exec", "web", "--", "sh", "-c", serves) == ""
    listed = said(server, "ports", "web").splitlines()
    assert [line.split() for line in listed] == [
        ["PORT", "SERVER", "BOUND", "TO", "URL"],
        ["80", "listens", "0.0.0.0", url],
        ["81", "-", "-", url.replace("/80/", "/81/")],
    ]
    assert plain.get(url).text == "b=c\n"
    table = [line.split() for line in said(server, "list").splitlines()]
    assert table[0] == ["NAME", "ID", "STATUS", "CPUS", "MEMORY", "PORTS", "SINCE"]
    assert table[1][:8] == ["web", machine["id"], "running", "2", "1024", "MiB", "80*", "81"]
    details = said(server, "show", "web")
    assert f"{url} (a server on 0.0.0.0, since " in details

    changed = shown(server, "change", "web", "-p", "80", "--no-labels")
    assert (changed["exposed_ports"], changed["labels"]) == ([80], {})
    vite = ["--port-host", "80=localhost:5173", "--keep-prefix", "80"]
    options = {"host": "localhost:5173", "strip_prefix": False}
    assert shown(server, "change", "web", *vite)["port_options"] == {"80": options}
    assert "Host: localhost:5173, the prefix stays on" in said(server, "show", "web")
    assert shown(server, "change", "web", "--no-port-options")["port_options"] == {}
    assert shown(server, "change", "web", "--no-ports")["exposed_ports"] == []
    assert said(server, "wait", "web", "--for", "running") == "web is running.\n"
    assert said(server, "logs", "web", "-n", "1") == "hyperfleet-agent: ready\n"
    assert said(server, "restart", machine["id"]) == "web is running.\n"
    assert said(server, "stop", "web") == "web is stopped.\n"
    assert said(server, "rm", "web") == "web is deleted.\n"
    assert shown(server, "list") == {"machines": []}


def test_a_machine_with_a_command(server: Server) -> None:
    begin = server.last_event()
    script = "echo $WORD; pwd; exit 3"
    said(server, "create", "web", "-e", "WORD=here", "--cwd", "/srv", "--", "sh", "-c", script)
    machine = shown(server, "show", "web")
    assert (machine["cmd"], machine["cwd"]) == (["sh", "-c", script], "/srv")
    assert f"sh -c '{script}' in /srv\n" in said(server, "show", "web")
    assert said(server, "start", "web") == "web is running.\n"
    with _started(server, "logs", "-f", "web") as logs:
        assert _lines(logs, 3) == ["hyperfleet-agent: ready", "here", "/srv"]
        logs.kill()
    with _started(server, "events", "web", "--after", begin) as told:
        while "  its command: ended with code 3  (machine)" not in _lines(told, 1)[0]:
            pass
        told.kill()
    shown_so = f"sh -c '{script}' in /srv (ended with code 3)\n"
    assert shown_so in said(server, "show", "web")


def test_several_at_once_and_what_fails_of_them(server: Server) -> None:
    for name in ("a", "b"):
        said(server, "create", name)
    done = server.run("start", "a", "nobody", "b", "a", check=False)
    assert done.returncode == FAILED
    assert done.stdout == "a is running.\nb is running.\n"
    assert done.stderr == "hyperfleet: nobody: Machine not found: nobody\n"
    stopped = shown(server, "stop", "a", "b")["machines"]
    assert [machine["status"] for machine in stopped] == ["stopped", "stopped"]
    assert shown(server, "list", "--status", "stopped")["machines"] != []
    assert shown(server, "list", "--label", "none")["machines"] == []
    refused = server.run("start", "nobody", check=False)
    assert (refused.returncode, refused.stdout) == (FAILED, "")
    assert refused.stderr == "hyperfleet: Machine not found: nobody\n"


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        (["create", "web", "-m", "much"], USAGE, "--memory much: must be MiB, or such as 512M"),
        (["create", "web", "-p", "0"], USAGE, "greater than or equal to 1"),
        (["create", "web", "-e", "A"], USAGE, "--env A: must be NAME=VALUE"),
        (["create", "web", "-l", "=b"], USAGE, "--label =b: must be NAME=VALUE"),
        (["create", "web", "--egress", "10.0.0.0/8:icmp"], USAGE, "all, none, or NETWORK"),
        (["create", "Web"], FAILED, "name must be a DNS label"),
        (["create", "web", "--restart", "soon"], FAILED, "restart must be never"),
        (["wait", "web", "--for", "gone"], FAILED, "status must be one of"),
        (["logs", "nobody", "-f"], FAILED, "Machine not found: nobody"),
        (["events", "nobody"], FAILED, "Machine not found: nobody"),
        (["events", "--after", "x"], FAILED, "the id of an event"),
        (["run", "--name", "No", "--", "true"], FAILED, "name must be a DNS label"),
    ],
)
def test_what_is_asked_wrongly(server: Server, command: list[str], code: int, words: str) -> None:
    done = server.run(*command, check=False)
    assert (done.returncode, done.stdout) == (code, "")
    assert words in " ".join(done.stderr.replace("│", "").split())


def test_a_wait_in_vain(server: Server) -> None:
    said(server, "create", "web")
    done = server.run("wait", "web", "--timeout", "1", check=False)
    assert done.returncode == FAILED
    assert "was not running within 1 s" in done.stderr


def _started(server: Server, *arguments: str) -> subprocess.Popen[bytes]:
    return server.popen(
        *arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def _lines(process: subprocess.Popen[bytes], count: int) -> list[str]:
    assert process.stdout is not None
    return [process.stdout.readline().decode().rstrip("\n") for _ in range(count)]


def test_events_and_logs_that_are_followed(server: Server) -> None:
    begin = server.last_event()
    said(server, "create", "web")
    said(server, "start", "web")
    with (
        _started(server, "logs", "-f", "web") as logs,
        _started(server, "events", "web", "--after", begin) as told,
        _started(server, "events", "--json", "--after", begin) as json_told,
    ):
        try:
            assert _lines(logs, 1) == ["hyperfleet-agent: ready"]
            said(server, "restart", "web")
            assert _lines(logs, 1) == ["hyperfleet-agent: ready"]
            said(server, "rm", "-f", "web")
            # These end with the machine.
            assert told.wait(END) == logs.wait(END) == 0
            rows = [re.split(r" {2,}", line) for line in _lines(told, 8)]
            assert [row[1:] for row in rows[:4]] == [
                ["web", "created", "(request)"],
                ["web", "pending -> starting", "(request)"],
                ["web", "starting -> running", "(request)"],
                ["web", "running -> stopping", "(request)"],
            ]
            assert json.loads(_lines(json_told, 1)[0])["type"] == "created"
        finally:
            json_told.kill()


def test_a_program_in_a_machine_of_its_own(server: Server) -> None:
    serves = "echo hi > /index.html; httpd -p 80 -h /; sleep 600"
    command = ("run", "--name", "mine", "-p", "80", "-e", "A=b", "--", "sh", "-c", serves)
    with _started(server, *command) as running:
        assert running.stderr is not None
        line = running.stderr.readline().decode()
        words = "hyperfleet: port 80 is served at "
        assert line.startswith(words)
        assert plain.get(line.removeprefix(words).strip()).text == "hi\n"
        running.send_signal(signal.SIGINT)
        # What it died of, as a shell tells it.
        assert running.wait(END) == 128 + signal.SIGINT
        assert b"INT is passed on" in running.stderr.read()
    assert shown(server, "list") == {"machines": []}


def test_a_program_that_ends_takes_its_machine_with_it(server: Server) -> None:
    done = server.run("run", "-w", "/srv", "-e", "A=b", "--", "sh", "-c", "pwd; echo $A; false",
                      check=False)  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (1, "/srv\nb\n", "")
    assert shown(server, "list") == {"machines": []}


def test_a_machine_that_is_kept(server: Server) -> None:
    done = server.run("run", "--name", "mine", "--keep", "--", "true", check=False)
    assert done.returncode == 0
    assert "mine stays; `hyperfleet rm -f mine` deletes it" in done.stderr
    assert shown(server, "show", "mine")["status"] == "running"


def test_a_machine_that_dies_under_its_program(server: Server) -> None:
    done = server.run("run", "--", "sh", "-c", "poweroff; sleep 600", check=False)
    assert done.returncode == FAILED
    assert done.stderr.startswith("hyperfleet: ")
    assert shown(server, "list") == {"machines": []}


def test_templates(server: Server) -> None:
    said(server, "create", "one", "--memory", "77")
    said(server, "start", "one")
    (template,) = _templates(server, 77, 1)
    said(server, "create", "two", "--memory", "77")
    said(server, "start", "two")
    assert shown(server, "show", "two")["last_start"]["how"] == "template"
    assert "from a template, in 0." in said(server, "show", "two")
    heading, row, *_ = said(server, "templates").splitlines()
    assert heading.split()[:3] == ["ID", "CPUS", "MEMORY"]
    # The last used first.
    assert row.split()[:3] == [template["id"], "1", "77"]
    gone = said(server, "templates", "rm", template["id"])
    assert gone == f"Template {template['id']} is removed.\n"
    assert _templates(server, 77, 0) == []
    done = server.run("templates", "rm", "none", check=False)
    assert (done.returncode, done.stderr) == (FAILED, "hyperfleet: there is no template 'none'\n")


def _templates(server: Server, mib: int, count: int) -> Any:
    """Those of that size, once there are so many: they are made behind a start."""
    found: list[Any] = []
    for _ in range(100):
        templates = shown(server, "templates")["templates"]
        found = [one for one in templates if one["mem_size_mib"] == mib]
        if len(found) == count:
            break
    return found


def test_data_disks(server: Server) -> None:
    made = said(server, "disks", "create", "db", "--size", "64M")
    assert made == "Disk db is made; give it to a machine with --disk db:/PATH.\n"
    said(server, "create", "web", "--disk", "db:/var/lib/db", "--disk-size", "2G", "--start")
    machine = shown(server, "show", "web")
    assert machine["disks"] == [{"disk": "db", "path": "/var/lib/db"}]
    assert machine["disk_size_mib"] == 2048
    assert ["disk", "db", "at", "/var/lib/db"] in [
        line.split() for line in said(server, "show", "web").splitlines()
    ]
    assert [row.split() for row in said(server, "disks").splitlines()] == [
        ["NAME", "SIZE", "TAKES", "MACHINE"],
        ["db", "64", "MiB", "0", "MiB", "web"],
    ]
    said(server, "exec", "web", "--", "sh", "-c", "echo 1 > /var/lib/db/file")
    usage = shown(server, "disks", "usage", "web")["disks"]
    assert [(one["disk"], one["path"]) for one in usage] == [(None, "/"), ("db", "/var/lib/db")]
    assert usage[1]["used_bytes"] == 2
    assert "/var/lib/db" in said(server, "disks", "usage", "web")
    said(server, "stop", "web")
    assert said(server, "disks", "grow", "db", "-s", "128M") == "Disk db has 128 MiB.\n"
    held = server.run("disks", "rm", "db", check=False)
    assert held.returncode == FAILED
    assert "attached to machine" in held.stderr
    assert said(server, "change", "web", "--no-disks") == "web is changed.\n"
    assert shown(server, "show", "web")["disks"] == []
    said(server, "disks", "rm", "db")
    assert shown(server, "disks") == {"disks": []}


def test_snapshots(server: Server) -> None:
    said(server, "create", "web", "-p", "80", "--start")
    said(server, "exec", "web", "--", "sh", "-c", "echo first > /file")
    made = said(server, "snapshots", "save", "web", "ready")
    assert made.startswith("ready is the memory and disk of web, ")
    said(server, "exec", "web", "--", "sh", "-c", "echo other > /file")
    assert "web is as it was in ready, and running.\n" in said(
        server, "snapshots", "restore", "web", "ready"
    )
    assert said(server, "exec", "web", "--", "cat", "/file") == "first\n"
    clone = shown(server, "snapshots", "clone", "ready", "copy", "--no-start", "-p", "81")
    assert (clone["status"], clone["exposed_ports"]) == ("sleeping", [81])
    [snapshot] = shown(server, "snapshots", "--machine", "web")["snapshots"]
    assert (snapshot["name"], snapshot["machine"]["name"], snapshot["memory"]) == (
        "ready",
        "web",
        True,
    )
    assert said(server, "snapshots").splitlines()[1].split()[:4] == [
        "ready", "web", "memory,", "disk",
    ]  # fmt: skip
    assert said(server, "snapshots", "rm", "ready") == "Snapshot ready is deleted.\n"
    assert shown(server, "snapshots") == {"snapshots": []}


def test_names_complete(server: Server) -> None:
    for name in ("web", "worker", "db"):
        said(server, "create", name)
    environment = {
        "_HYPERFLEET_COMPLETE": "complete_bash",
        "COMP_WORDS": "hyperfleet start w",
        "COMP_CWORD": "2",
    }
    before = dict(server.environment)
    server.environment.update(environment)
    try:
        completed = server.run(check=False).stdout.split()
    finally:
        server.environment.clear()
        server.environment.update(before)
    assert completed == ["web", "worker"]


@pytest.mark.parametrize(
    ("text", "size"), [("512", 512), ("512M", 512), ("2G", 2048), ("2gib", 2048), ("1MB", 1)]
)
def test_memory(text: str, size: int) -> None:
    assert arguments.mebibytes(text) == size


@pytest.mark.parametrize("text", ["", "G", "1.5G", "-1", "1T", "1 G", "1e3"])
def test_what_is_no_memory(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        arguments.mebibytes(text)


def test_egress() -> None:
    assert arguments.egress(None) is None
    assert arguments.egress(["none"]) == "none"
    assert arguments.egress(["10.0.0.0/8", "192.0.2.1/32:udp:53"]) == (
        EgressRule(network="10.0.0.0/8"),
        EgressRule(network="192.0.2.1/32", protocol="udp", ports=(53,)),
    )
    for wrong in (["10.0.0.0/8:x"], ["10.0.0.0/8:tcp:a"]):
        with pytest.raises(typer.BadParameter):
            arguments.egress(wrong)
