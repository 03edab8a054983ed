"""A real nginx with a configuration from the documentation."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

# Seconds, as a guard.
_PATIENCE = 10


@contextlib.contextmanager
def nginx(program: str, folder: Path, inside_http: str, port: int) -> Iterator[None]:
    """Runs it, what it writes in `folder`, until the block ends; it accepts at `port` by then."""
    temporary = "".join(
        f"{name}_temp_path {folder}/{name};\n"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    configuration, errors = folder / "nginx.conf", folder / "error.log"
    configuration.write_text(
        f"daemon off;\npid {folder}/nginx.pid;\nerror_log {errors};\n"
        "worker_processes 1;\nevents {}\n"
        f"http {{\naccess_log off;\n{temporary}{inside_http}}}\n"
    )
    process = subprocess.Popen([program, "-c", configuration, "-e", errors])
    try:
        deadline = time.monotonic() + _PATIENCE
        while not _accepts(port):
            assert process.poll() is None, errors.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield
    finally:
        process.terminate()
        process.wait(_PATIENCE)


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True
