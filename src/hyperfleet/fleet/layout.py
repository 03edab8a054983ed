"""Where machines lie in the home, and what a driver is told of one.

machines/ID/          a machine's own: disk, console, sockets
machines/ID.deleted/  its end was decided; removed, with its record, at the latest by the next
control plane that opens this home
"""

from __future__ import annotations

from pathlib import Path

from hyperfleet.durable import sync_folder
from hyperfleet.fleet.config import ImagesLike
from hyperfleet.machine import ID_PATTERN, Machine, MachineNetwork
from hyperfleet.network import user
from hyperfleet.vmm.driver import LaunchSpec

_DELETED = ".deleted"


class Layout:
    """The machines' directories in one home."""

    def __init__(self, home: Path) -> None:
        self._machines = home.absolute() / "machines"

    def directory(self, machine_id: str) -> Path:
        """The machine's own directory; may not be there yet."""
        return self._machines / machine_id

    def doomed(self, machine_id: str) -> Path:
        """What the directory is called once the machine's end is decided."""
        return self._machines / f"{machine_id}{_DELETED}"

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

    def condemned(self) -> list[str]:
        """The ids of machines whose end was decided and not completed."""
        names = (entry.name for entry in self._machines.iterdir())
        ids = (name.removesuffix(_DELETED) for name in names if name.endswith(_DELETED))
        return sorted(one for one in ids if ID_PATTERN.match(one))


def launch_spec(machine: Machine, directory: Path, images: ImagesLike) -> LaunchSpec:
    """All that a driver needs to start the machine.

    Raises:
        ValidationError: kernel or disk are not (or no longer) usable.
    """
    return _launch(
        machine,
        directory,
        kernel=images.kernel(machine.spec.kernel_image_path),
        initramfs=images.initramfs(),
        base_disk=images.root_disk(machine.spec.rootfs_path),
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
    machine: Machine, directory: Path, *, kernel: Path, initramfs: Path, base_disk: Path
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
        network=machine.network,
        ports=machine.spec.exposed_ports,
        egress=machine.spec.egress,
    )
