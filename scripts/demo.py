"""`make demo`: the example of docs/guides/reverse-proxy.md, acted out against a real machine.

Prints each step as the command that a user would type and runs exactly that. Everything lives in a
folder of its own and is removed at the end; with --keep it is left running.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT / "tests"))

# The tests' folder is no package of the product.
from support.ports import free_port  # noqa: E402
from support.ports import keep as keep_port  # noqa: E402

IMAGES = CHECKOUT / ".hyperfleet"
HELLO = "<h1>Hello from Hyperfleet!</h1>"
# Seconds.
READY = 60.0
END = 60.0


class DemoError(Exception):
    """A step did not do what it should; the message says which."""


class Shell:
    """Types commands: prints them, then runs them by bash."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.environment = environment
        self._started = time.monotonic()

    def say(self, text: str) -> None:
        """A headline, with the time that has passed."""
        print(f"\n# {text}  [{time.monotonic() - self._started:.1f} s]", flush=True)

    def type(self, command: str) -> str:
        """Prints a command, runs it, prints and returns what it printed."""
        print(f"$ {command}", flush=True)
        ended = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        print(ended.stdout.rstrip("\n"), flush=True)
        if ended.returncode != 0:
            raise DemoError(f"this ended with exit status {ended.returncode}: {command}")
        return ended.stdout


def act(shell: Shell, api: str, proxy: str) -> None:
    """The guide's example, step by step."""
    disk, install = demo_image()
    shell.environment["KEY"] = (shell.folder / ".hyperfleet/api-key").read_text().strip()
    get = f'curl -sS --fail-with-body -H "Authorization: Bearer $KEY" {api}'
    post = f'curl -sS --fail-with-body -H "Authorization: Bearer $KEY" -X POST {api}/machines'
    json_type = '-H "Content-Type: application/json"'

    shell.say("Make a machine with port 80 exposed")
    created = shell.type(
        f"""{post} {json_type} -d '{{
    "name": "nginx-server", "vcpu_count": 1, "mem_size_mib": 256,
    "kernel_image_path": ".hyperfleet/vmlinux", "rootfs_path": ".hyperfleet/{disk}",
    "exposed_ports": [80]}}'"""
    )
    machine: str = json.loads(created)["id"]

    shell.say("Start it")
    booted = json.loads(shell.type(f"{post}/{machine}/start"))["last_start"]

    page = f'echo \\"{HELLO}\\" > /var/www/localhost/htdocs/index.html'

    def serve(name: str) -> None:
        for request in (
            f'{{"cmd": {install}, "timeout": 60}}',
            f'{{"cmd": ["sh", "-c", "{page}"]}}',
            '{"cmd": ["nginx"]}',
        ):
            answer = json.loads(shell.type(f"{post}/{name}/exec {json_type} -d '{request}'"))
            if answer["exit_code"] != 0:
                raise DemoError(f"in the machine this failed: {request}")

    shell.say("Install nginx in it, write a page, start nginx")
    serve(machine)

    shell.say("Fetch the page through the proxy, by path and by host")
    by_host = f"{machine}-80.local.dev:{proxy.rsplit(':', 1)[1]}"
    for command in (
        f"curl -sS {proxy}/proxy/{machine}/80/",
        f"curl -sS --resolve {by_host}:127.0.0.1 http://{by_host}/",
    ):
        if shell.type(command).strip() != HELLO:
            raise DemoError(f"the page did not come from: {command}")

    shell.say("Start another: its kernel need not boot, it is a clone of a template made meanwhile")
    wait_for_template(shell, get)
    shell.type(
        f"""{post} {json_type} -d '{{
    "name": "another", "vcpu_count": 1, "mem_size_mib": 256,
    "kernel_image_path": ".hyperfleet/vmlinux", "rootfs_path": ".hyperfleet/{disk}",
    "exposed_ports": [80]}}'"""
    )
    cloned = json.loads(shell.type(f"{post}/another/start"))["last_start"]
    serve("another")
    if shell.type(f"curl -sS {proxy}/proxy/another/80/").strip() != HELLO:
        raise DemoError("the page did not come from the clone")
    if (booted["how"], cloned["how"]) != ("boot", "template"):
        raise DemoError(f"not a boot and a clone: {booted}, {cloned}")
    print(
        f"\nThe first booted in {booted['duration_ms']} ms,"
        f" the second was there in {cloned['duration_ms']} ms."
    )


def wait_for_template(shell: Shell, get: str) -> None:
    """Returns when there is one; the last question is printed."""
    deadline = time.monotonic() + READY
    while time.monotonic() < deadline:
        asked = subprocess.run(
            ["bash", "-c", f"{get}/templates"],
            env=shell.environment,
            capture_output=True,
            check=False,
        )
        if asked.returncode == 0 and json.loads(asked.stdout)["templates"]:
            shell.type(f"{get}/templates")
            return
        time.sleep(0.1)
    raise DemoError("no template was made")


def demo_image() -> tuple[str, str]:
    """The root disk and the package manager's line: Alpine's as in the guide, else Debian's."""
    if (IMAGES / "alpine-rootfs.ext4").exists() and _is_known("dl-cdn.alpinelinux.org"):
        return "alpine-rootfs.ext4", '["apk", "add", "--no-cache", "nginx"]'
    if (IMAGES / "debian-rootfs.ext4").exists():
        return "debian-rootfs.ext4", '["apt-get", "install", "-y", "nginx-light"]'
    raise DemoError("there is no root disk for the demo; run: make setup")


def _is_known(server: str) -> bool:
    """Whether the package manager in the machine would find its server."""
    try:
        socket.getaddrinfo(server, 443)
    except OSError:
        return False
    return True


def wait_ready(server: subprocess.Popen[bytes], api: str) -> None:
    """Returns when the server says that it is ready."""
    deadline = time.monotonic() + READY
    while time.monotonic() < deadline and server.poll() is None:
        asked = subprocess.run(["curl", "-fs", f"{api}/ready"], capture_output=True, check=False)
        if asked.returncode == 0:
            return
        time.sleep(0.1)
    raise DemoError("the server did not start")


def end(shell: Shell, server: subprocess.Popen[bytes]) -> None:
    """Ends machines, data plane and server, and removes the folder."""
    shell.say("Clean up")
    try:
        if server.poll() is None:
            shell.type("hyperfleet down")
            server.wait(END)
    finally:
        if server.poll() is None:
            server.terminate()
            server.wait(END)
    shutil.rmtree(shell.folder)


def farewell(shell: Shell, api: str, proxy: str) -> None:
    """What to try while it runs, and how to end it."""
    ports = f"PORT={shell.environment['PORT']} PROXY_PORT={shell.environment['PROXY_PORT']}"
    shell.say("Left running")
    print(
        f"""The API is at {api} (reference: {api}/docs), the proxy at {proxy}. Try:
  export KEY={shell.environment["KEY"]}
  curl -H "Authorization: Bearer $KEY" {api}/machines/nginx-server/ports
  curl -H "Authorization: Bearer $KEY" {api}/machines/nginx-server/logs?tail=20
  curl {proxy}/proxy/nginx-server/80/
End it with:
  (cd {shell.folder} && {ports} {CHECKOUT}/.venv/bin/hyperfleet down) && rm -r {shell.folder}"""
    )


def main() -> int:
    """Runs the demo; 0 when the page came twice."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave it running at the end")
    keep = parser.parse_args().keep

    folder = Path(tempfile.mkdtemp(prefix="hyperfleet-demo-"))
    (folder / ".hyperfleet").mkdir()
    for name in ("vmlinux", "initramfs.cpio", "alpine-rootfs.ext4", "debian-rootfs.ext4"):
        if (IMAGES / name).exists():
            (folder / ".hyperfleet" / name).symlink_to(IMAGES / name)
    documented = {"PORT": 3000, "PROXY_PORT": 4000}
    ports = {
        name: str(port if keep_port(port) else free_port()) for name, port in documented.items()
    }
    environment = {
        **os.environ,
        **ports,
        "PATH": f"{CHECKOUT / '.venv/bin'}:{os.environ['PATH']}",
        "HYPERFLEET_IMAGE_DIRS": str(IMAGES),
        "PROXY_HOST_SUFFIX": ".local.dev",
    }
    shell = Shell(folder, environment)
    api, proxy = (f"http://localhost:{port}" for port in ports.values())

    shell.say("Start the server")
    print("$ PROXY_HOST_SUFFIX=.local.dev hyperfleet serve &", flush=True)
    log_path = folder / "serve.log"
    with log_path.open("wb") as log:
        server = subprocess.Popen(
            [CHECKOUT / ".venv/bin/hyperfleet", "serve"],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    succeeded = False
    try:
        wait_ready(server, api)
        act(shell, api, proxy)
        succeeded = True
    except DemoError as error:
        print(f"\nThe demo failed: {error}\nThe server's log:", file=sys.stderr)
        print(log_path.read_text(errors="replace")[-4000:], file=sys.stderr)
    finally:
        if succeeded and keep:
            farewell(shell, api, proxy)
        else:
            end(shell, server)
    return 0 if succeeded else 1


if __name__ == "__main__":
    sys.exit(main())
