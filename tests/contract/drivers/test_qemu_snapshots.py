"""What a snapshot of a real machine has of its memory, whatever it does meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyperfleet.errors import CapacityError
from hyperfleet.vmm import migration
from support import witness
from support.bench import Bench, Guest
from support.need import mounts

pytestmark = pytest.mark.vm


async def test_what_a_machine_writes_meanwhile_is_whole_in_its_snapshot(
    qemu: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a clone's memory all is of the same moment.

    Where an emulated machine's is read while it goes on, and more than once, that fails.
    """
    monkeypatch.setattr(migration, "_REST_MS", 1)
    guest = await qemu.start(qemu.launch())
    await guest.sh(witness.BEGIN)
    (tmp_path / "one").mkdir()
    await guest.process.snapshot(tmp_path / "one")
    other = qemu.launch()
    other.directory.mkdir(parents=True)
    await qemu.driver.copy(tmp_path / "one", other.directory)
    clone = await Guest.of(await qemu.driver.start(other))
    for one in (clone, guest):
        assert await one.sh(witness.SOUND) == ""
        await one.let_go()


@pytest.mark.parametrize("patience", [0.0, 20.0])
async def test_a_machine_that_is_read_while_it_runs_goes_on(
    qemu: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patience: float
) -> None:
    """As with KVM, where all that it writes is seen. Here it is not, so nothing is made of it.

    Without patience it is stopped at once; with some it may be as well, or not.
    """

    async def sees_writes(_: object) -> bool:
        return True

    monkeypatch.setattr(migration, "sees_writes", sees_writes)
    monkeypatch.setattr(migration, "_LIVE_S", patience)
    guest = await qemu.start(qemu.launch())
    writes = (
        "while :; do head -c 8000000 /dev/urandom > /dev/shm/new; mv /dev/shm/new /dev/shm/data;"
        " md5sum < /dev/shm/data > /sum; done > /dev/null 2>&1 &"
        " while [ ! -s /sum ]; do sleep 0.05; done"
    )
    await guest.sh(writes)
    (tmp_path / "one").mkdir()
    await guest.process.snapshot(tmp_path / "one")
    assert (tmp_path / "one/memory").stat().st_size > 8_000_000
    await guest.sh('old=$(cat /sum); while [ "$(cat /sum)" = "$old" ]; do sleep 0.05; done')
    await guest.let_go()


@mounts
async def test_a_snapshot_for_which_there_is_no_room_leaves_the_machine_as_it_was(
    small: Path, qemu: Bench, tmp_path: Path
) -> None:
    guest = await qemu.start(qemu.launch())
    (small / "one").mkdir()
    with pytest.raises(CapacityError, match="No space left on device"):
        await guest.process.snapshot(small / "one")
    assert (await guest.run("echo", "here")).stdout == b"here\n"
    (tmp_path / "two").mkdir()
    await guest.process.snapshot(tmp_path / "two")
    assert (await guest.run("echo", "here")).stdout == b"here\n"
    await guest.let_go()
