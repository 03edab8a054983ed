"""Templates of the fake driver: nothing is kept but that they were made."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

import msgspec

from hyperfleet.errors import NotFoundError
from hyperfleet.machine import TemplateInfo
from hyperfleet.vmm.driver import LaunchSpec, Recipe


class FakeTemplates:
    """`most`: how many are kept at once."""

    def __init__(self, most: int) -> None:
        self._most = most
        # The last used last.
        self._kept: dict[str, TemplateInfo] = {}
        self._hopeless: set[str] = set()

    def take(self, launch: LaunchSpec) -> str | None:
        """The template of a machine's shape; None: there is none."""
        info = self._kept.pop(_key(launch), None)
        if info is None:
            return None
        self._kept[info.id] = msgspec.structs.replace(info, used_at=datetime.now(UTC))
        return info.id

    def recipe(self, launch: LaunchSpec) -> Recipe | None:
        """How it is made; None: there is one, or there can be none."""
        if not self._lacks(key := _key(launch)):
            return None

        async def make() -> None:
            if self._lacks(key):
                self._make(key, launch)

        return Recipe(shape=key, mem_size_mib=launch.mem_size_mib, make=make)

    def _lacks(self, key: str) -> bool:
        return self._most > 0 and key not in self._kept and key not in self._hopeless

    def _make(self, key: str, launch: LaunchSpec) -> None:
        now = datetime.now(UTC)
        self._kept[key] = TemplateInfo(
            id=key,
            kernel_image_path=str(launch.kernel),
            kernel_args=launch.kernel_args,
            vcpu_count=launch.vcpu_count,
            mem_size_mib=launch.mem_size_mib,
            size_bytes=0,
            made_in_ms=0,
            made_at=now,
            used_at=now,
        )
        while len(self._kept) > self._most:
            del self._kept[next(iter(self._kept))]

    def discard(self, key: str) -> None:
        """It was of no use; no other is made."""
        self._hopeless.add(key)
        self._kept.pop(key, None)

    def remove(self, key: str) -> None:
        """Removes one.

        Raises:
            NotFoundError: there is none of that name.
        """
        if self._kept.pop(key, None) is None:
            raise NotFoundError(f"there is no template {key[:100]!r}")

    def kept(self) -> list[TemplateInfo]:
        """All, the last used first."""
        return [*reversed(self._kept.values())]


def _key(launch: LaunchSpec) -> str:
    shape = [str(launch.kernel), launch.kernel_args, launch.vcpu_count, launch.mem_size_mib]
    return hashlib.sha256(msgspec.json.encode(shape)).hexdigest()[:16]
