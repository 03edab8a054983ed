"""The record of keys in the database; keeps the promises of `auth.keyring.KeyStore`."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Row, Select, insert, select, update
from sqlalchemy.exc import IntegrityError

from hyperfleet.auth.keys import Key, Scope
from hyperfleet.store.database import Database
from hyperfleet.store.tables import KeyRow, MarkRow

_FIRST_KEY = "first-key"


class SqlKeyStore:
    """Keys in `database`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, key: Key) -> None:
        async with self._database.write() as connection:
            await connection.execute(insert(KeyRow).values(_to_row(key)))

    async def add_first(self, key: Key) -> bool:
        try:
            # The mark and the key in one transaction: never one without the other.
            async with self._database.write() as connection:
                await connection.execute(
                    insert(MarkRow).values(name=_FIRST_KEY, made_at=key.created_at)
                )
                await connection.execute(insert(KeyRow).values(_to_row(key)))
        except IntegrityError:
            return False
        return True

    async def needs_first(self) -> bool:
        async with self._database.read() as connection:
            mark = await connection.scalar(select(MarkRow.name).where(MarkRow.name == _FIRST_KEY))
            return mark is None

    async def by_prefix(self, prefix: str) -> list[Key]:
        return await self._keys(_every_key().where(KeyRow.prefix == prefix))

    async def all(self) -> list[Key]:
        return await self._keys(_every_key())

    async def touch(self, key_id: str, used_at: datetime) -> None:
        async with self._database.write() as connection:
            await connection.execute(
                update(KeyRow).where(KeyRow.id == key_id).values(last_used_at=used_at)
            )

    async def revoke(self, key_id: str, revoked_at: datetime) -> bool:
        async with self._database.write() as connection:
            result = await connection.execute(
                update(KeyRow)
                .where(KeyRow.id == key_id, KeyRow.revoked_at.is_(None))
                .values(revoked_at=revoked_at)
            )
            return result.rowcount == 1

    async def _keys(self, query: Select[Any]) -> list[Key]:
        async with self._database.read() as connection:
            return [_from_row(row) for row in await connection.execute(query)]


def _every_key() -> Select[Any]:
    return select(KeyRow.__table__).order_by(KeyRow.sequence)


def _to_row(key: Key) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "prefix": key.prefix,
        "digest": key.digest,
        "scopes": [scope.value for scope in key.scopes],
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "last_used_at": key.last_used_at,
        "revoked_at": key.revoked_at,
    }


def _from_row(row: Row[Any]) -> Key:
    return Key(
        id=row.id,
        name=row.name,
        prefix=row.prefix,
        digest=row.digest,
        scopes=tuple(Scope(scope) for scope in row.scopes),
        created_at=row.created_at,
        expires_at=row.expires_at,
        last_used_at=row.last_used_at,
        revoked_at=row.revoked_at,
    )
