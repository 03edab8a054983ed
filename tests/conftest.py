"""What every test shares: the order of the folders, and what a test needs of the host."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from support.images import images as made_by_setup
from support.need import Need
from support.shared import SHARED, Shared

if TYPE_CHECKING:
    from support.zygote import Zygote

# Fast ones first; a folder that is not here comes last.
STAGES = ("unit", "contract", "integration", "e2e")
# What takes a minute and more comes first in its folder: at the end all others would wait for it.
LONG = ("e2e/test_killed.py", "e2e/test_model.py", "e2e/test_twenty.py", "e2e/user/")
_TESTS = Path(__file__).parent


@pytest.fixture(scope="session")
def need() -> Need:
    return Need()


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    """For files that start a server for each of their tests, and again in it."""
    from support.zygote import Zygote  # noqa: PLC0415 - few tests need it

    with Zygote() as made:
        yield made


@pytest.fixture(scope="session")
def images(need: Need) -> Path:
    """The folder of kernel, initramfs and root disks."""
    return made_by_setup(need)


@pytest.fixture(scope="session")
def templates(request: pytest.FixtureRequest, need: Need, images: Path) -> Path:
    """Of which machines are cloned where their start is not the point; see `support.templates`."""
    from support.templates import made  # noqa: PLC0415 - few tests need it

    need("qemu-system-x86_64")
    return made(request.config.stash[SHARED].folder, images)


@pytest.fixture(scope="session")
def wheel(need: Need, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the checkout, as `make wheel` makes it."""
    from support.wheel import built  # noqa: PLC0415 - few tests need it

    return built(need, tmp_path_factory.mktemp("wheel"))


def pytest_configure(config: pytest.Config) -> None:
    """What tests start is hung up as a shell's commands are, also under nohup(1)."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    folder = _of_worker(config) or tempfile.mkdtemp(prefix="hf-tests-")
    config.stash[SHARED] = Shared(Path(folder))


def pytest_unconfigure(config: pytest.Config) -> None:
    if not _of_worker(config):
        shutil.rmtree(config.stash[SHARED].folder, ignore_errors=True)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tells a worker where what is shared lies."""
    node.workerinput["shared"] = str(node.config.stash[SHARED].folder)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Files of tests are not divided; without workers nothing of it is loaded."""
    from support.scheduling import ByFile  # noqa: PLC0415

    return ByFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: (_stage(item.path), not _is_long(item.path)))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leaves a test out when one of an earlier folder has failed: it would only fail too."""
    failed = item.config.stash[SHARED].failed_before(_stage(item.path))
    if failed is not None:
        pytest.skip(f"tests/{STAGES[failed]} failed: the slower ones are not run")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    report: pytest.TestReport = yield
    if report.failed:
        item.config.stash[SHARED].failed(_stage(item.path))
    return report


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """What tests had to tell."""
    for text in config.stash[SHARED].told():
        terminalreporter.write_line("")
        terminalreporter.write_line(text)


def _of_worker(config: pytest.Config) -> str | None:
    """Where what is shared lies, if this is a worker."""
    given: dict[str, str] | None = getattr(config, "workerinput", None)
    return None if given is None else given["shared"]


def _is_long(path: Path) -> bool:
    return path.relative_to(_TESTS).as_posix().startswith(LONG)


def _stage(path: Path) -> int:
    folder = path.relative_to(_TESTS).parts[0]
    return STAGES.index(folder) if folder in STAGES else len(STAGES)
