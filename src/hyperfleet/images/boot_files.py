"""What a machine boots from: the kernel, its modules, and the initramfs around the guest agent."""

from __future__ import annotations

from pathlib import Path

from hyperfleet.errors import SetupError
from hyperfleet.images import cpio, kernel, modules
from hyperfleet.images.apt import Apt, Package
from hyperfleet.images.programs import run
from hyperfleet.images.workshop import Inputs, Workshop, digest

KERNEL = "vmlinux"
MODULES = "modules"
INITRAMFS = "initramfs.cpio"
ORDER = "order"

# Debian's kernel for virtual machines; the package only names the newest one.
_META_PACKAGE = "linux-image-cloud-amd64"
_MODULE_NAMES = [*modules.NEEDED, *modules.WANTED]
# Counts changes of how these are made, so that a new Hyperfleet makes them anew.
_VERSION = "1"


class PackagedKernel:
    """Debian's cloud kernel, from its package: fetched and unpacked, never installed."""

    def __init__(self, workshop: Workshop) -> None:
        """Finds the package.

        Raises:
            SetupError: apt does not know it; says to give a kernel.
        """
        self._workshop = workshop
        try:
            self._apt = Apt(workshop.folder("apt"))
            self._package = self._find()
        except SetupError as error:
            raise SetupError(
                f"no Debian kernel can be had here ({error.message}):"
                " give one with `hyperfleet setup --kernel PATH`"
            ) from error

    def _find(self) -> Package:
        for attempt in range(2):
            if attempt:
                self._apt.update()
            meta = self._apt.candidate(_META_PACKAGE)
            names = meta.depends if meta else ()
            for name in names:
                if name.startswith("linux-image-") and (found := self._apt.candidate(name)):
                    return found
        raise SetupError(f"apt knows no {_META_PACKAGE}")

    @property
    def title(self) -> str:
        """For people."""
        return f"{self._package.name} {self._package.version}"

    @property
    def inputs(self) -> Inputs:
        """Its recipe."""
        return {
            "source": "package",
            "package": self._package.name,
            "version": self._package.version,
            "modules": _MODULE_NAMES,
            "made by": _VERSION,
        }

    def make(self) -> tuple[bytes, list[modules.Module]]:
        """The plain kernel and the modules for it.

        Raises:
            SetupError: the package can't be had, or is not as it should be.
        """
        try:
            package = self._apt.download(self._package)
        except SetupError:
            # The lists are older than the archive, which keeps the newest version only.
            self._apt.update()
            self._package = self._find()
            package = self._apt.download(self._package)
        tree = self._workshop.folder("kernel")
        run(["dpkg-deb", "-x", str(package), str(tree)])
        images = sorted((tree / "boot").glob("vmlinuz-*"))
        if not images:
            raise SetupError(f"{self._package.name} holds no kernel")
        image = images[0].read_bytes()
        return kernel.extract(image), modules.choose(tree / "lib/modules" / kernel.release(image))


class GivenKernel:
    """A kernel that the user has; modules are those of its release on this host."""

    def __init__(self, path: Path, installed: Path = Path("/lib/modules")) -> None:
        """Reads it.

        Raises:
            SetupError: it can't be read, or is no kernel.
        """
        try:
            self._image = path.read_bytes()
        except OSError as error:
            raise SetupError(f"--kernel {path} can't be read: {error.strerror}") from error
        self._path = path.resolve()
        self._release = kernel.release(self._image)
        self._tree = installed / self._release

    @property
    def title(self) -> str:
        """For people."""
        return f"{self._path} ({self._release})"

    @property
    def inputs(self) -> Inputs:
        """Its recipe."""
        return {
            "source": "given",
            "path": str(self._path),
            "sha256 of it": digest(self._path),
            "modules": _MODULE_NAMES if self._tree.is_dir() else [],
            "made by": _VERSION,
        }

    def make(self) -> tuple[bytes, list[modules.Module]]:
        """The plain kernel and the modules for it; none where the host has none of its release.

        Raises:
            SetupError: it can't be unpacked, or a module that is needed is missing.
        """
        plain = kernel.extract(self._image)
        return plain, modules.choose(self._tree) if self._tree.is_dir() else []


KernelSource = PackagedKernel | GivenKernel


def kernel_source(workshop: Workshop, given: Path | None) -> KernelSource:
    """Where the kernel comes from: what is given now, else as the last time, else Debian's.

    Raises:
        SetupError: as the two sources do.
    """
    if given is not None:
        return GivenKernel(given)
    recipe = workshop.recipe(KERNEL) or {}
    if recipe.get("source") == "given":
        return GivenKernel(Path(str(recipe["path"])))
    return PackagedKernel(workshop)


def kernel_is_made(workshop: Workshop, source: KernelSource) -> bool:
    """Whether this kernel is in place, and its modules with it."""
    inputs = source.inputs
    return all(workshop.is_made(name, inputs) for name in (MODULES, KERNEL))


def make_kernel(workshop: Workshop, source: KernelSource) -> None:
    """Puts the kernel and its modules in place.

    Raises:
        SetupError: as the source does.
    """
    plain, chosen = source.make()
    folder = workshop.folder("new-modules")
    for module in chosen:
        (folder / f"{module.name}.ko").write_bytes(module.data)
    (folder / ORDER).write_text("".join(f"{module.name}.ko\n" for module in chosen))
    new = workshop.scratch / KERNEL
    new.write_bytes(plain)
    inputs = source.inputs
    workshop.publish(folder, MODULES, inputs)
    workshop.publish(new, KERNEL, inputs)


def initramfs_inputs(workshop: Workshop, agent: Path) -> Inputs:
    """The recipe of an initramfs from what is in place now and this agent."""
    folder = workshop.home / MODULES
    parts = [f"{name} {digest(folder / name)}" for name in (ORDER, *_module_order(folder))]
    return {"agent": digest(agent), "modules": parts, "made by": _VERSION}


def make_initramfs(workshop: Workshop, agent: Path) -> None:
    """Puts the initramfs in place: `/init` is the agent, `/modules` as its order file says."""
    inputs = initramfs_inputs(workshop, agent)
    folder = workshop.home / MODULES
    entries = [
        cpio.file("init", agent.read_bytes(), 0o755),
        # The kernel opens it for PID 1 before devtmpfs is mounted.
        cpio.folder("dev"),
        cpio.character_device("dev/console", 5, 1),
        cpio.folder(MODULES),
        *(
            cpio.file(f"{MODULES}/{name}", (folder / name).read_bytes())
            for name in (ORDER, *_module_order(folder))
        ),
    ]
    new = workshop.scratch / INITRAMFS
    new.write_bytes(cpio.archive(entries))
    workshop.publish(new, INITRAMFS, inputs)


def _module_order(folder: Path) -> list[str]:
    return (folder / ORDER).read_text().split()
