"""Keys: how they look, what they open, and that the first one is never lost."""

from __future__ import annotations

import asyncio
import hashlib
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hyperfleet.auth import keys
from hyperfleet.auth.keyring import LAST_USE_EVERY, Keyring
from hyperfleet.auth.keys import Key, Scope
from hyperfleet.errors import NotFoundError, UnauthorizedError

NOW = datetime(2030, 1, 1, tzinfo=UTC)


class MemoryKeys:
    """A record of keys in memory; counts reads and last uses.

    It can lose power before the first key, and break off after a revocation is written.
    """

    def __init__(self) -> None:
        self.keys: dict[str, Key] = {}
        self.first = False
        self.reads = 0
        self.touches: list[datetime] = []
        self.power_fails = False
        self.breaks_off = False
        self.may_read = asyncio.Event()
        self.may_read.set()
        self.reading = asyncio.Event()

    async def add(self, key: Key) -> None:
        self.keys[key.id] = key

    async def add_first(self, key: Key) -> bool:
        if self.power_fails:
            raise OSError("power failure")
        if self.first:
            return False
        self.first = True
        self.keys[key.id] = key
        return True

    async def needs_first(self) -> bool:
        return not self.first

    async def by_prefix(self, prefix: str) -> list[Key]:
        self.reads += 1
        self.reading.set()
        found = [key for key in self.keys.values() if key.prefix == prefix]
        await self.may_read.wait()
        return found

    async def all(self) -> list[Key]:
        return list(self.keys.values())

    async def touch(self, key_id: str, used_at: datetime) -> None:
        self.touches.append(used_at)

    async def revoke(self, key_id: str, revoked_at: datetime) -> bool:
        found = self.keys.pop(key_id, None) is not None
        if self.breaks_off:
            raise asyncio.CancelledError
        return found


def names(folder: Path) -> list[str]:
    return [file.name for file in folder.iterdir()]


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


def test_a_secret() -> None:
    secrets = {keys.new_secret() for _ in range(100)}
    assert len(secrets) == 100
    for secret in secrets:
        assert re.fullmatch(r"hf_[A-Za-z0-9]{32}", secret)
        assert keys.well_formed(secret)


@pytest.mark.parametrize(
    "secret", ["", "hf_", "hf_" + "a" * 31, "hf_" + "é" * 32, "xx_" + "a" * 32]
)
def test_what_is_no_secret(secret: str) -> None:
    assert not keys.well_formed(secret)


def test_what_is_kept() -> None:
    secret = keys.new_secret()
    key = keys.new_key(secret, name="ci", scopes=(Scope.READ,), now=NOW, expires_at=None)
    assert key.prefix == secret[:11]
    assert key.digest == hashlib.sha256(secret.encode()).digest()
    assert secret not in repr(key)
    assert keys.matches(key, secret)
    assert not keys.matches(key, secret[:-1] + ("a" if secret[-1] != "a" else "b"))


@pytest.mark.parametrize("scope", list(Scope))
def test_scopes(scope: Scope) -> None:
    secret = keys.new_secret()
    key = keys.new_key(secret, name="ci", scopes=(scope,), now=NOW, expires_at=None)
    for asked in Scope:
        assert key.allows(asked) == (scope in (asked, Scope.ALL))


async def test_expiry_to_the_moment() -> None:
    clock = Clock()
    ring = Keyring(MemoryKeys(), now=clock)
    end = NOW + timedelta(hours=1)
    made = await ring.create(name="ci", scopes=(Scope.READ,), expires_at=end)
    clock.now = end - timedelta(microseconds=1)
    assert (await ring.authenticate(made.secret)).id == made.key.id
    clock.now = end
    with pytest.raises(UnauthorizedError):
        await ring.authenticate(made.secret)


async def test_two_keys_of_one_prefix_are_told_apart() -> None:
    store = MemoryKeys()
    ring = Keyring(store, now=Clock())
    for end in ("a", "b"):
        secret = "hf_" + "x" * 31 + end
        await store.add(
            keys.new_key(secret, name=end, scopes=(Scope.READ,), now=NOW, expires_at=None)
        )
    assert (await ring.authenticate("hf_" + "x" * 31 + "b")).name == "b"
    with pytest.raises(UnauthorizedError):
        await ring.authenticate("hf_" + "x" * 31 + "c")


async def test_last_use_is_written_at_most_once_a_minute() -> None:
    clock, store = Clock(), MemoryKeys()
    ring = Keyring(store, now=clock)
    made = await ring.create(name="ci", scopes=(Scope.READ,), expires_at=None)
    for _ in range(5):
        await ring.authenticate(made.secret)
    clock.now = NOW + LAST_USE_EVERY - timedelta(seconds=1)
    await ring.authenticate(made.secret)
    assert store.touches == [NOW]
    clock.now = NOW + LAST_USE_EVERY
    await ring.authenticate(made.secret)
    assert store.touches == [NOW, NOW + LAST_USE_EVERY]


async def test_a_key_that_is_known_is_not_read_again() -> None:
    store = MemoryKeys()
    ring = Keyring(store)
    made = await ring.create(name="ci", scopes=(Scope.READ,), expires_at=None)
    for _ in range(5):
        assert (await ring.authenticate(made.secret)).id == made.key.id
    assert store.reads == 1
    # What opens nothing is not kept: whoever tries keys fills nobody's memory.
    for _ in range(2):
        with pytest.raises(UnauthorizedError):
            await ring.authenticate(keys.new_secret())
    assert store.reads == 3


async def test_a_revoked_key_opens_nothing_from_then_on() -> None:
    ring = Keyring(MemoryKeys())
    made = await ring.create(name="ci", scopes=(Scope.READ,), expires_at=None)
    await ring.authenticate(made.secret)
    await ring.revoke(made.key.id)
    for _ in range(2):
        with pytest.raises(UnauthorizedError):
            await ring.authenticate(made.secret)
    assert ring.has_met(made.secret)


async def test_after_a_revocation_that_was_cut_off_the_record_decides() -> None:
    store = MemoryKeys()
    ring = Keyring(store)
    made = await ring.create(name="ci", scopes=(Scope.READ,), expires_at=None)
    await ring.authenticate(made.secret)
    store.breaks_off = True
    with pytest.raises(asyncio.CancelledError):
        await ring.revoke(made.key.id)
    with pytest.raises(UnauthorizedError):
        await ring.authenticate(made.secret)


async def test_a_key_that_is_revoked_while_it_is_read_opens_nothing_after_that() -> None:
    store = MemoryKeys()
    ring = Keyring(store)
    made = await ring.create(name="ci", scopes=(Scope.READ,), expires_at=None)
    store.may_read.clear()
    reading = asyncio.create_task(ring.authenticate(made.secret))
    await store.reading.wait()
    await ring.revoke(made.key.id)
    store.may_read.set()
    # It was asked for before the end of the key, and may say either.
    assert (await reading).id == made.key.id
    with pytest.raises(UnauthorizedError):
        await ring.authenticate(made.secret)


async def test_revoking_what_is_not_there() -> None:
    with pytest.raises(NotFoundError):
        await Keyring(MemoryKeys()).revoke("none")


async def test_the_first_key_is_made_once(tmp_path: Path) -> None:
    file = tmp_path / "api-key"
    ring = Keyring(MemoryKeys())
    first = await ring.first_key(file)
    assert first is not None
    assert file.read_text() == first.secret + "\n"
    assert file.stat().st_mode & 0o777 == 0o600
    assert (await ring.authenticate(first.secret)).scopes == (Scope.ALL,)
    file.unlink()
    assert await ring.first_key(file) is None
    assert not file.exists()


async def test_a_crash_while_the_first_key_is_made_leaves_nobody_locked_out(
    tmp_path: Path,
) -> None:
    file, store = tmp_path / "api-key", MemoryKeys()
    store.power_fails = True
    with pytest.raises(OSError, match="power failure"):
        await Keyring(store).first_key(file)
    store.power_fails = False
    ring = Keyring(store)
    assert await ring.first_key(file) is not None
    assert (await ring.authenticate(file.read_text().strip())).name == "first"
    # Which of them is another database's is not to be told: none is thrown away.
    assert names(tmp_path) == ["api-key", "api-key.old"]
