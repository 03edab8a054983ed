from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hyperfleet.errors import SetupError
from hyperfleet.images.workshop import Inputs, Workshop, open_workshop

RECIPE: Inputs = {"version": "1", "parts": ["a", "b"]}


def test_is_made_once_for_a_recipe(tmp_path: Path) -> None:
    with open_workshop(tmp_path) as workshop:
        assert not workshop.is_made("thing", RECIPE)
        publish(workshop, "thing", b"first")
        assert workshop.is_made("thing", RECIPE)
        assert not workshop.is_made("thing", {**RECIPE, "version": "2"})
    assert (tmp_path / "thing").read_bytes() == b"first"
    with open_workshop(tmp_path) as workshop:
        assert workshop.recipe("thing") == RECIPE


@pytest.mark.parametrize("damage", ["", "{", '{"version": "1", "parts": ["a", "b"]}', "[]"])
def test_a_damaged_recipe_counts_as_none(tmp_path: Path, damage: str) -> None:
    with open_workshop(tmp_path) as workshop:
        publish(workshop, "thing", b"first")
        (tmp_path / "thing.recipe").write_text(damage)
        assert not workshop.is_made("thing", RECIPE)


def test_a_recipe_without_its_artefact_counts_as_none(tmp_path: Path) -> None:
    with open_workshop(tmp_path) as workshop:
        publish(workshop, "thing", b"first")
        (tmp_path / "thing").unlink()
        assert not workshop.is_made("thing", RECIPE)


@pytest.mark.parametrize("crash_at", range(3))
def test_a_crash_while_publishing_leaves_a_whole_file_that_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crash_at: int
) -> None:
    with open_workshop(tmp_path) as workshop:
        publish(workshop, "thing", b"first")
    unlink, rename = Path.unlink, Path.rename
    steps = iter(range(crash_at))

    def crash() -> None:
        monkeypatch.setattr(Path, "unlink", lambda path, **_: act(unlink, path, True))
        monkeypatch.setattr(Path, "rename", lambda path, to: act(rename, path, to))

    def act(step: Callable[..., object], *arguments: object) -> object:
        if next(steps, None) is None:
            monkeypatch.undo()
            raise KeyboardInterrupt
        return step(*arguments)

    newer: Inputs = {**RECIPE, "version": "2"}
    with pytest.raises(KeyboardInterrupt), open_workshop(tmp_path) as workshop:
        publish(workshop, "thing", b"second", newer, crash)
    assert (tmp_path / "thing").read_bytes() in (b"first", b"second")
    with open_workshop(tmp_path) as workshop:
        if workshop.is_made("thing", newer):
            assert (tmp_path / "thing").read_bytes() == b"second"
        if workshop.is_made("thing", RECIPE):
            assert (tmp_path / "thing").read_bytes() == b"first"
    assert leftovers(tmp_path) == set()


def test_versions_of_a_disk_stay_for_those_that_stand_on_them(tmp_path: Path) -> None:
    disk = tmp_path / "debian.ext4"
    with open_workshop(tmp_path) as workshop:
        assert publish_version(workshop, "debian.ext4", b"first") is None
        first = disk.resolve()
        assert publish_version(workshop, "debian.ext4", b"second") == first
    assert (first.read_bytes(), disk.read_bytes()) == (b"first", b"second")
    assert disk.readlink().parts[0] == "disks"


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    with open_workshop(tmp_path) as workshop:
        for text in ("old", "new"):
            folder = workshop.folder("work")
            (folder / text).write_text(text)
            workshop.publish(folder, "modules", {"text": text})
    assert [path.name for path in (tmp_path / "modules").iterdir()] == ["new"]


def test_two_set_ups_at_once_are_refused(tmp_path: Path) -> None:
    with (
        open_workshop(tmp_path),
        pytest.raises(SetupError, match="another `hyperfleet setup`"),
        open_workshop(tmp_path),
    ):
        pass
    with open_workshop(tmp_path):
        pass


def test_what_a_killed_set_up_left_is_swept(tmp_path: Path) -> None:
    (tmp_path / ".making/half").mkdir(parents=True)
    (tmp_path / ".making/half/disk").write_text("half")
    with open_workshop(tmp_path) as workshop:
        assert list(workshop.scratch.iterdir()) == []
    assert leftovers(tmp_path) == set()


def test_a_home_that_can_not_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SetupError, match="HYPERFLEET_HOME"), open_workshop(tmp_path / "file/home"):
        pass


def publish(
    workshop: Workshop,
    name: str,
    data: bytes,
    recipe: Inputs = RECIPE,
    before: Callable[[], None] = lambda: None,
) -> None:
    made = workshop.scratch / name
    made.write_bytes(data)
    before()
    workshop.publish(made, name, recipe)


def publish_version(workshop: Workshop, name: str, data: bytes) -> Path | None:
    made = workshop.scratch / name
    made.write_bytes(data)
    return workshop.publish_version(made, name, RECIPE)


def leftovers(home: Path) -> set[str]:
    expected = {"thing", "thing.recipe", ".setup.lock"}
    return {path.name for path in home.iterdir()} - expected
