"""Makes a root disk: a raw ext4 file system from a tarball or a folder, without mounting it."""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path

from hyperfleet.images.programs import run

MIB = 1 << 20

# No checksums of metadata, and 32-bit block numbers are enough: each is work that the guest would
# do at every write. A journal there is, though it is work too: machines are killed, lose their
# host's power, and begin again on the disk that is then there.
_FEATURES = "has_journal,^metadata_csum,^64bit"
_JOURNAL_MIB = 8


def make_disk(
    disk: Path, *, work: Path, size: int, label: str, overlay: Path, base: Path | None = None
) -> None:
    """Writes an ext4 file system of `size` bytes (sparse) to the new file `disk`.

    It holds what the tarball `base` unpacks to, and over it the files of the folder `overlay`,
    owned by root. Owners and modes of the tarball are kept, also where we are not root: all of it
    runs under one fakeroot then. `work` is an empty folder of the caller's.

    Raises:
        SetupError: a program is missing or failed; the message holds its last words.
    """
    root = work / "root"
    steps = [["mkdir", str(root)]]
    if base is not None:
        steps.append(["tar", "-x", "--numeric-owner", "-p", "-f", str(base), "-C", str(root)])
    # --no-preserve=ownership: the overlay's files are the caller's outside, root's inside.
    copy = ["cp", "-R", "--no-dereference", "--preserve=mode,links", "--remove-destination"]
    steps += [
        [*copy, f"{overlay}/.", str(root)],
        ["chown", "0:0", str(root)],
        [
            *["mke2fs", "-q", "-F", "-t", "ext4", "-O", _FEATURES, "-b", "4096", "-m", "0"],
            *["-J", f"size={_JOURNAL_MIB}"],
            *["-L", label, "-d", str(root), str(disk), f"{size // 1024}k"],
        ],
    ]
    script = "set -e\n" + "\n".join(shlex.join(step) for step in steps)
    try:
        run([*([] if os.geteuid() == 0 else ["fakeroot"]), "sh", "-c", script])
    finally:
        _remove(root)


def _remove(root: Path) -> None:
    """Removes an unpacked tree, folders included that deny it to their owner."""
    if os.geteuid() != 0:
        for folder, names, _ in os.walk(root):
            for name in names:
                inner = Path(folder, name)
                if not inner.is_symlink():
                    inner.chmod(0o700)
    shutil.rmtree(root, ignore_errors=True)
