"""What a process of the system has used, by the kernel's own account (proc(5))."""

from __future__ import annotations

from pathlib import Path

from benchmarks import processes


def cpu_seconds(pid: int) -> float:
    """CPU time so far, of all its threads; its children's is not in it."""
    return processes.cpu_nanoseconds(pid) / 1e9


def memory(pid: int) -> int:
    """Bytes that it takes now, shared pages divided among those who share them."""
    return processes.rolled_up(pid, "Pss:")


def running_in(folder: Path, name: str) -> int:
    """The pid of the program `name` whose working directory is `folder`.

    Raises:
        RuntimeError: there is none.
    """
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                here = (entry / "cwd").readlink() == folder.resolve()
                command = (entry / "cmdline").read_bytes().split(b"\0")[0]
            except OSError:
                continue
            if here and command.endswith(name.encode()):
                return int(entry.name)
    msg = f"no {name} runs in {folder}"
    raise RuntimeError(msg)
