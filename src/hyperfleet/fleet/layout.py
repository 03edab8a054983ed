"""Where machines lie in the home, and what a driver is told of one.

machines/ID/            a machine's own: disk, console, sockets
machines/ID.deleted/    its end was decided; removed, with its record, at the latest by the next
                        control plane that opens this home
machines/ID.restoring/  a snapshot that is being copied; half-made
machines/ID.restored/   the same, whole: it takes the place of machines/ID, at the latest at the
                        next opening, if there is a record of the machine
machines/ID.replaced/   what was in that place
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Collection
from pathlib import Path

from hyperfleet.durable import sync_folder, sync_tree
from hyperfleet.failpoints import Point, reach
from hyperfleet.fleet.config import ImagesLike
from hyperfleet.machine import ID_PATTERN, Machine, MachineNetwork
from hyperfleet.network import user
from hyperfleet.vmm.driver import DataDisk, LaunchSpec

_DELETED, _RESTORING, _RESTORED, _REPLACED = ".deleted", ".restoring", ".restored", ".replaced"
# What goes on through a restore: what its console said.
_CONSOLE = "console.log"


class Layout:
    """The machines' directories in one home."""

    def __init__(self, home: Path) -> None:
        self._machines = home.absolute() / "machines"

    def directory(self, machine_id: str) -> Path:
        """The machine's own directory; may not be there yet."""
        return self._machines / machine_id

    def doomed(self, machine_id: str) -> Path:
        """What the directory is called once the machine's end is decided."""
        return self._with(machine_id, _DELETED)

    def _with(self, machine_id: str, suffix: str) -> Path:
        return self._machines / f"{machine_id}{suffix}"

    def prepare(self) -> None:
        """Makes the folder of the machines. Only this user may look into it."""
        self._machines.mkdir(mode=0o700, parents=True, exist_ok=True)

    def condemn(self, machine_id: str) -> None:
        """Decides the machine's end, durably: the name of its directory says so."""
        try:
            self.directory(machine_id).rename(self.doomed(machine_id))
        except FileNotFoundError:
            # Never started: nothing but the record is to go, which is one step anyway.
            return
        sync_folder(self._machines)

    def reprieve(self, machine_id: str) -> None:
        """Takes `condemn` back."""
        if self.doomed(machine_id).exists():
            self.doomed(machine_id).rename(self.directory(machine_id))
            sync_folder(self._machines)

    def fresh(self, machine_id: str) -> Path:
        """An empty folder to copy what the machine is to become to. Blocks."""
        fresh = self._with(machine_id, _RESTORING)
        if fresh.exists():
            shutil.rmtree(fresh)
        fresh.mkdir(mode=0o700)
        return fresh

    def decide(self, machine_id: str) -> None:
        """What was copied is the machine from now on, whatever happens, if it has a record."""
        fresh = self._with(machine_id, _RESTORING)
        with contextlib.suppress(FileNotFoundError):
            (fresh / _CONSOLE).hardlink_to(self.directory(machine_id) / _CONSOLE)
        sync_tree(fresh)
        fresh.rename(self._with(machine_id, _RESTORED))
        sync_folder(self._machines)

    def forget(self, machine_id: str) -> None:
        """Removes what was copied after all. Blocks."""
        for suffix in (_RESTORING, _RESTORED):
            shutil.rmtree(self._with(machine_id, suffix), ignore_errors=True)

    def swap(self, machine_id: str) -> None:
        """Puts it in its place. The machine has no process."""
        directory, replaced = self.directory(machine_id), self.replaced(machine_id)
        if directory.exists():
            if replaced.exists():
                shutil.rmtree(replaced)
            directory.rename(replaced)
        reach(Point.RESTORE_CLEARED)
        self._with(machine_id, _RESTORED).rename(directory)
        sync_folder(self._machines)

    def replaced(self, machine_id: str) -> Path:
        """What `swap` has put out of the way, to be removed."""
        return self._with(machine_id, _REPLACED)

    def complete_swaps(self, recorded: Collection[str]) -> None:
        """Completes what was decided of machines that are recorded; removes all other leftovers."""
        for path in [*self._machines.iterdir()]:
            if path.suffix == _RESTORED and path.stem in recorded:
                self.swap(path.stem)
        for path in [*self._machines.iterdir()]:
            if path.suffix in (_RESTORING, _RESTORED, _REPLACED):
                shutil.rmtree(path, ignore_errors=True)

    def condemned(self) -> list[str]:
        """The ids of machines whose end was decided and not completed."""
        names = (entry.name for entry in self._machines.iterdir())
        ids = (name.removesuffix(_DELETED) for name in names if name.endswith(_DELETED))
        return sorted(one for one in ids if ID_PATTERN.match(one))


def launch_spec(
    machine: Machine, directory: Path, images: ImagesLike, disks: tuple[DataDisk, ...]
) -> LaunchSpec:
    """All that a driver needs to start the machine; `disks` are its data disks.

    Raises:
        ValidationError: kernel or disk are not (or no longer) usable.
    """
    return _launch(
        machine,
        directory,
        kernel=images.kernel(machine.spec.kernel_image_path),
        initramfs=images.initramfs(),
        base_disk=images.root_disk(machine.spec.rootfs_path),
        disks=disks,
    )


def known_launch(machine: Machine, directory: Path) -> LaunchSpec:
    """What finds the machine again, whatever became of its kernel and disk: not to start it by."""
    path = Path(machine.spec.kernel_image_path)
    disk = Path(machine.spec.rootfs_path)
    return _launch(machine, directory, kernel=path, initramfs=path, base_disk=disk)


def nameless_launch(machine_id: str, directory: Path) -> LaunchSpec:
    """The same for a machine whose record is gone, and with it all but its directory."""
    return LaunchSpec(
        id=machine_id,
        name=machine_id,
        directory=directory,
        vcpu_count=1,
        mem_size_mib=1,
        kernel=directory,
        initramfs=directory,
        kernel_args=None,
        base_disk=directory,
        network=MachineNetwork(mode=user.MODE),
    )


def _launch(
    machine: Machine,
    directory: Path,
    *,
    kernel: Path,
    initramfs: Path,
    base_disk: Path,
    disks: tuple[DataDisk, ...] = (),
) -> LaunchSpec:
    return LaunchSpec(
        id=machine.id,
        name=machine.spec.name,
        directory=directory,
        vcpu_count=machine.spec.vcpu_count,
        mem_size_mib=machine.spec.mem_size_mib,
        kernel=kernel,
        initramfs=initramfs,
        kernel_args=machine.spec.kernel_args,
        base_disk=base_disk,
        disk_size_mib=machine.spec.disk_size_mib,
        disks=disks,
        network=machine.network,
        ports=machine.spec.exposed_ports,
        egress=machine.spec.egress,
    )
