"""Set-up is killed at each point that there is; what was there serves on, and the next one mends.

The real program with the host's real tools, in a home of the test's.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from hyperfleet.failpoints import SETUP, VARIABLE, Point
from hyperfleet.images.locate import Images
from support.need import Need
from support.server import hyperfleet
from support.table import printed

PLAIN_KERNEL = b"\x7fELF Linux version 6.1.0-nowhere (someone) #1\0"
ARTEFACTS = ("modules", "vmlinux", "initramfs.cpio", "minimal-rootfs.ext4")
# What is made first once its recipe is lost, and the points on its way.
_FILE = (Point.SETUP_MADE, Point.SETUP_UNSIGNED, Point.SETUP_PLACED, Point.SETUP_RECORDED)
WAYS: dict[str, tuple[Point, ...]] = {
    "modules": (*_FILE, Point.SETUP_CLEARED),
    "initramfs.cpio": _FILE,
    "minimal-rootfs.ext4": (
        Point.SETUP_MADE,
        Point.SETUP_UNSIGNED,
        Point.SETUP_VERSIONED,
        Point.SETUP_LINKED,
        Point.SETUP_RECORDED,
    ),
}


class Home:
    """A home in which `hyperfleet setup` has the minimal disk made, with a kernel of the test's."""

    def __init__(self, folder: Path, kernel: Path) -> None:
        self.path = folder / "home"
        self._kernel = kernel

    def setup(self, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [*hyperfleet(), "setup", "--flavour", "minimal", "--kernel", str(self._kernel)]
        environment = {**os.environ, "HYPERFLEET_HOME": str(self.path), **environment}
        return subprocess.run(
            command,
            cwd=self.path.parent,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def killed_at(self, point: Point) -> None:
        ended = self.setup(**{VARIABLE: point})
        assert ended.returncode == -signal.SIGKILL, ended.stdout + ended.stderr

    def mended(self) -> float:
        """Sets up again; seconds that it took."""
        begun = time.perf_counter()
        ended = self.setup()
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return time.perf_counter() - begun

    def there(self) -> list[str]:
        return [name for name in ARTEFACTS if (self.path / name).exists()]

    def disk(self) -> Path:
        """The version that the disk's name leads to."""
        return (self.path / "minimal-rootfs.ext4").resolve()

    def versions(self) -> set[Path]:
        return set((self.path / "disks").iterdir())

    def is_of_use(self) -> None:
        """All that a machine boots from is there and what it should be."""
        images = Images(self.path)
        assert images.kernel(str(self.path / "vmlinux")).read_bytes() == PLAIN_KERNEL
        disk = images.root_disk(str(self.path / "rootfs.ext4"))
        assert (
            subprocess.run(["e2fsck", "-fn", disk], capture_output=True, check=False).returncode
            == 0
        )
        assert images.initramfs().stat().st_size > 0

    def is_whole(self) -> None:
        """And nothing else is: no scratch; each artefact with its recipe."""
        self.is_of_use()
        assert self.there() == list(ARTEFACTS)
        recipes = {f"{name}.recipe" for name in ARTEFACTS}
        links = {"rootfs.ext4", "disks", ".setup.lock"}
        assert {path.name for path in self.path.iterdir()} == {*ARTEFACTS, *recipes, *links}
        for name in recipes:
            assert msgspec.json.decode((self.path / name).read_bytes())["sha256"]
        assert "making" not in self.setup().stdout


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory, need: Need) -> Path:
    for program in ("mke2fs", "debugfs", "e2fsck", "busybox", "fakeroot"):
        need(program)
    kernel = tmp_path_factory.mktemp("kernel") / "kernel"
    kernel.write_bytes(PLAIN_KERNEL)
    return kernel


@pytest.fixture
def home(tmp_path: Path, kernel: Path) -> Home:
    """An empty one."""
    return Home(tmp_path, kernel)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, kernel: Path) -> Path:
    """One in which all is made, to be copied."""
    made = Home(tmp_path_factory.mktemp("whole"), kernel)
    made.mended()
    return made.path


@pytest.fixture(scope="module")
def table(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    with printed(
        request, "killed at        making               found            seconds to mend"
    ) as rows:
        yield rows


def test_every_point_is_walked() -> None:
    assert {point for ways in WAYS.values() for point in ways} == set(SETUP)


@pytest.mark.parametrize("point", [point for point in SETUP if point is not Point.SETUP_CLEARED])
def test_killed_in_an_empty_home(home: Home, point: Point, table: list[str]) -> None:
    home.killed_at(point)
    there = home.there()
    seconds = home.mended()
    table.append(f"{point:16} {'the first':20} {len(there)} of {len(ARTEFACTS):<11} {seconds:.1f}")
    home.is_whole()
    assert len(home.versions()) <= 2
    assert home.disk() in home.versions()


@pytest.mark.parametrize(
    ("artefact", "point"), [(name, point) for name, ways in WAYS.items() for point in ways]
)
def test_killed_when_it_makes_one_anew(
    home: Home, whole: Path, artefact: str, point: Point, table: list[str]
) -> None:
    shutil.copytree(whole, home.path, symlinks=True)
    before = home.disk()
    (home.path / f"{artefact}.recipe").unlink()
    home.killed_at(point)
    # Machines start meanwhile, from the old or the new.
    home.is_of_use()
    meanwhile, there = home.disk(), home.there()
    seconds = home.mended()
    table.append(f"{point:16} {artefact:20} {len(there)} of {len(ARTEFACTS):<11} {seconds:.1f}")
    home.is_whole()
    # Each version has been what the name led to, so a machine may stand on it; no other is left.
    assert home.versions() == {before, meanwhile, home.disk()}
