"""Finds the kernel, the initramfs and the root disk of a machine, and sees that they are such."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from hyperfleet.errors import ValidationError
from hyperfleet.images import boot_files, kernel
from hyperfleet.images.flavour import FLAVOURS, disk_name

KERNEL_FIELD = "kernel_image_path"
DISK_FIELD = "rootfs_path"

# ext4's superblock starts at 1024, its magic is 56 bytes in
# (linux/Documentation/filesystems/ext4/super.rst).
_EXT4_MAGIC_AT = 1080
_EXT4_MAGIC = b"\x53\xef"
_CPIO_MAGIC = b"070701"
_START_BYTES = 2048


class Images:
    """The files that a machine may be started from: those in the home or in `image_dirs`."""

    def __init__(self, home: Path, image_dirs: Sequence[Path] = ()) -> None:
        self._home = home
        self._folders = (home, *image_dirs)

    def kernel(self, path: str) -> Path:
        """The kernel that `path` leads to, symbolic links followed.

        Raises:
            ValidationError: it is outside, missing, or no kernel; names `kernel_image_path`.
        """
        return self._find(
            path,
            KERNEL_FIELD,
            "a Linux kernel (ELF or bzImage)",
            lambda start: kernel.is_elf(start) or kernel.is_bzimage(start),
        )

    def root_disk(self, path: str) -> Path:
        """The raw ext4 disk that `path` leads to, symbolic links followed.

        A machine's own disk stands on the file that is returned, never on the link: set-up may
        point the link elsewhere.

        Raises:
            ValidationError: it is outside, missing, or no ext4 disk; names `rootfs_path`.
        """
        return self._find(
            path,
            DISK_FIELD,
            "a raw ext4 file system",
            lambda start: start[_EXT4_MAGIC_AT : _EXT4_MAGIC_AT + 2] == _EXT4_MAGIC,
        )

    def initramfs(self) -> Path:
        """The initramfs with the guest agent.

        Raises:
            ValidationError: it is missing or no initramfs.
        """
        return self._find(
            str(self._home / boot_files.INITRAMFS),
            "initramfs",
            "an initramfs (cpio, newc)",
            lambda start: start.startswith(_CPIO_MAGIC),
        )

    def _find(self, path: str, field: str, kind: str, is_kind: Callable[[bytes], bool]) -> Path:
        if not path or "\0" in path:
            raise ValidationError(f"{field}: the path of {kind} is needed")
        try:
            real = Path(path).resolve()
        except (OSError, RuntimeError) as error:  # a loop of links
            raise ValidationError(f"{field}: {path} leads nowhere: {error}") from error
        if not any(real.is_relative_to(folder.resolve()) for folder in self._folders):
            raise ValidationError(
                f"{field}: {path} lies neither in HYPERFLEET_HOME ({self._home})"
                " nor in one of HYPERFLEET_IMAGE_DIRS"
            )
        try:
            if real.exists() and not real.is_file():
                raise ValidationError(f"{field}: {path} is not a regular file")
            with real.open("rb") as file:
                start = file.read(_START_BYTES)
        except FileNotFoundError:
            raise ValidationError(
                f"{field}: {path} is not there; `{command_for(Path(path).name)}` makes it"
            ) from None
        except OSError as error:
            raise ValidationError(f"{field}: {path} can't be read: {error.strerror}") from error
        if not is_kind(start):
            raise ValidationError(f"{field}: {path} is not {kind}")
        return real


def command_for(file_name: str) -> str:
    """The command that makes a file of this name in the home."""
    for flavour in FLAVOURS:
        if file_name == disk_name(flavour):
            return f"hyperfleet setup --flavour {flavour}"
    return "hyperfleet setup"
