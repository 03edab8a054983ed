"""Who may in: keys are made, listed, revoked and checked here, and the first one is born here."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

import msgspec

from hyperfleet.auth import keys
from hyperfleet.auth.files import set_aside, write_private
from hyperfleet.auth.keys import Key, Scope
from hyperfleet.errors import CapacityError, NotFoundError, UnauthorizedError

_log = logging.getLogger(__name__)

# Last use is for people who tidy up; a write a request would be for nobody.
LAST_USE_EVERY = timedelta(minutes=1)


class KeyStore(Protocol):
    """What is asked of the record of keys; `store.keys` keeps it in a database."""

    async def add(self, key: Key) -> None:
        """Records a new key."""

    async def add_first(self, key: Key) -> bool:
        """Records a key unless this database has ever had a first one; says whether it did."""

    async def needs_first(self) -> bool:
        """Whether no first key was ever recorded."""

    async def by_prefix(self, prefix: str) -> list[Key]:
        """The keys whose shown part this is."""

    async def all(self) -> list[Key]:
        """Every key, revoked ones too, oldest first."""

    async def touch(self, key_id: str, used_at: datetime) -> None:
        """Records a last use."""

    async def revoke(self, key_id: str, revoked_at: datetime) -> bool:
        """Records a revocation; says whether there was such a key, unrevoked."""


class Issued(msgspec.Struct, frozen=True):
    """A key just made: what is kept of it, and the secret, which is never shown again."""

    key: Key
    secret: str


def _now() -> datetime:
    return datetime.now(UTC)


class Keyring:
    """The keys of one database, which is this process's alone.

    A key that has opened something is kept in memory: requests don't wait for the record.
    """

    def __init__(self, store: KeyStore, *, now: Callable[[], datetime] = _now) -> None:
        self._store = store
        self._now = now
        # Last uses written by this process, so that a burst of requests is one write.
        self._touched: dict[str, datetime] = {}
        # The keys that have opened something since this process began, by digest.
        self._met: dict[bytes, Key] = {}
        # The ids of keys that somebody has begun to revoke: for these the record is asked.
        self._ending: set[str] = set()

    async def create(
        self, *, name: str, scopes: tuple[Scope, ...], expires_at: datetime | None
    ) -> Issued:
        """Makes a key and records it."""
        secret = keys.new_secret()
        key = keys.new_key(secret, name=name, scopes=scopes, now=self._now(), expires_at=expires_at)
        await self._store.add(key)
        return Issued(key, secret)

    async def list(self) -> list[Key]:
        """The keys that are not revoked, oldest first; expired ones are among them."""
        return [key for key in await self._store.all() if key.revoked_at is None]

    async def revoke(self, key_id: str) -> None:
        """Ends a key, at once.

        Raises:
            NotFoundError: there is none with that id, or it is revoked already.
        """
        # First: whether the record has it, should this be cut off, only the record knows.
        self._ending.add(key_id)
        if not await self._store.revoke(key_id, self._now()):
            raise NotFoundError(f"Key not found: {key_id}")

    async def authenticate(self, secret: str) -> Key:
        """The key that this is.

        Raises:
            UnauthorizedError: it is none of ours, or expired or revoked (which is not told
                apart from unknown: whoever holds a dead key learns nothing from it).
        """
        now = self._now()
        if keys.well_formed(secret):
            key = await self._find(secret)
            if key is not None and key.usable(now):
                self._met[key.digest] = key
                await self._note_use(key, now)
                return key
        raise UnauthorizedError("The key is unknown, expired or revoked")

    def has_met(self, secret: str) -> bool:
        """Whether this has opened something here before; it may have been revoked since."""
        return keys.digest(secret) in self._met

    async def first_key(self, file: Path) -> Issued | None:
        """Makes the database's first key and leaves it in `file`; None when it ever had one.

        The file comes first: a crash between the two leaves a file with a key that opens
        nothing, and the next start makes both anew. The other order would leave a record that
        forbids a first key, and nobody who has it. A key that lies there already belongs to another
        database, whose only copy it may be: it is kept beside the new one.
        """
        if not await self._store.needs_first():
            return None
        secret = keys.new_secret()
        key = keys.new_key(
            secret, name="first", scopes=(Scope.ALL,), now=self._now(), expires_at=None
        )
        kept = await asyncio.to_thread(set_aside, file)
        if kept is not None:
            _log.warning("this database is new; the key of the one before it is now in %s", kept)
        await asyncio.to_thread(write_private, file, secret + os.linesep)
        if not await self._store.add_first(key):
            return None
        return Issued(key, secret)

    async def _find(self, secret: str) -> Key | None:
        """The key as it stands in memory or, where that may have changed, in the record."""
        met = self._met.get(keys.digest(secret))
        if met is not None and met.id not in self._ending:
            return met
        found = await self._store.by_prefix(secret[: keys.SHOWN_LENGTH])
        return next((key for key in found if keys.matches(key, secret)), None)

    async def _note_use(self, key: Key, now: datetime) -> None:
        last = max((at for at in (self._touched.get(key.id), key.last_used_at) if at), default=None)
        if last is None or now - last >= LAST_USE_EVERY:
            self._touched[key.id] = now
            # A full disk must not lock out those who would make room.
            with contextlib.suppress(CapacityError):
                await self._store.touch(key.id, now)
