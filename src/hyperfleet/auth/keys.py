"""Keys of the API: how one is made, kept and compared. Pure: the record is `store`'s."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import string
from datetime import datetime
from enum import StrEnum

import msgspec

PREFIX = "hf_"
RANDOM_LENGTH = 32
# `hf_` and 8 characters: enough to tell keys apart in a list, far too little to guess the rest.
SHOWN_LENGTH = 11
_ALPHABET = string.ascii_letters + string.digits
_ID_ALPHABET = string.digits + string.ascii_lowercase


class Scope(StrEnum):
    """What a key may do. A key may have several; `*` stands for all, and alone manages keys."""

    READ = "machines:read"
    WRITE = "machines:write"
    EXEC = "machines:exec"
    ALL = "*"


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """A key as it is kept: never the secret, only its SHA-256. Times are aware, UTC."""

    id: str
    name: str
    prefix: str
    digest: bytes
    scopes: tuple[Scope, ...]
    created_at: datetime
    expires_at: datetime | None = None
    last_used_at: datetime | None = None
    revoked_at: datetime | None = None

    def usable(self, now: datetime) -> bool:
        """Whether it opens anything at `now`."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)

    def allows(self, scope: Scope) -> bool:
        """Whether its scopes cover `scope`."""
        return scope in self.scopes or Scope.ALL in self.scopes


def new_secret() -> str:
    """A fresh key: `hf_` and 32 letters and digits (190 bits) from the system's CSPRNG."""
    return PREFIX + "".join(secrets.choice(_ALPHABET) for _ in range(RANDOM_LENGTH))


def new_key(
    secret: str, *, name: str, scopes: tuple[Scope, ...], now: datetime, expires_at: datetime | None
) -> Key:
    """What to keep of `secret`."""
    return Key(
        id="".join(secrets.choice(_ID_ALPHABET) for _ in range(12)),
        name=name,
        prefix=secret[:SHOWN_LENGTH],
        digest=digest(secret),
        scopes=scopes,
        created_at=now,
        expires_at=expires_at,
    )


def well_formed(secret: str) -> bool:
    """Whether it could be a key at all; spares the record the question where it can't."""
    return (
        len(secret) == len(PREFIX) + RANDOM_LENGTH
        and secret.startswith(PREFIX)
        and all(character in _ALPHABET for character in secret[len(PREFIX) :])
    )


def digest(secret: str) -> bytes:
    """SHA-256. No salt, no stretching: 190 random bits can't be searched, words could."""
    return hashlib.sha256(secret.encode()).digest()


def matches(key: Key, secret: str) -> bool:
    """Whether `secret` is this key, in a time that does not tell how much of it is right."""
    return hmac.compare_digest(key.digest, digest(secret))
