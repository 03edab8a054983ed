"""The tables. Migrations make them; a test holds the two to each other."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, DateTime, Index, LargeBinary, MetaData, String, TypeDecorator
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class UtcDateTime(TypeDecorator[datetime]):
    """An aware time, kept as naive UTC: SQLite has no time zones."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        return None if value is None else value.replace(tzinfo=UTC)


class Base(DeclarativeBase):
    """All tables of ours; constraints are named so that later migrations can find them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_name)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class MachineRow(Base):
    """A machine. `sequence` is the order of creation; what is volatile (ports) is not kept."""

    __tablename__ = "machines"

    sequence: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(12), unique=True)
    name: Mapped[str] = mapped_column(String(63), unique=True)
    status: Mapped[str] = mapped_column(String(16))
    spec: Mapped[dict[str, Any]] = mapped_column(JSON)
    vmm: Mapped[str] = mapped_column(String(16))
    network: Mapped[dict[str, Any]] = mapped_column(JSON)
    pid: Mapped[int | None]
    lifecycle: Mapped[int]
    error_message: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)
    started_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    restarts: Mapped[int] = mapped_column(server_default="0")
    next_start_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    host_boot: Mapped[str | None] = mapped_column(String(36))
    guest_fault: Mapped[str | None]
    last_start: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    command: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))


class RestingAddressRow(Base):
    """The address of a removed machine, until nobody speaks to it any more."""

    __tablename__ = "resting_addresses"

    guest_ip: Mapped[str] = mapped_column(String(15), primary_key=True)
    since: Mapped[datetime] = mapped_column(UtcDateTime)


class KeyRow(Base):
    """A key of the API: its SHA-256, never itself."""

    __tablename__ = "keys"
    __table_args__ = (Index("ix_keys_prefix", "prefix"),)

    sequence: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(12), unique=True)
    name: Mapped[str] = mapped_column(String(100))
    prefix: Mapped[str] = mapped_column(String(11))
    digest: Mapped[bytes] = mapped_column(LargeBinary(32))
    scopes: Mapped[list[str]] = mapped_column(JSON)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    last_used_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    revoked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class MarkRow(Base):
    """Things that happen once for a database: `first-key`."""

    __tablename__ = "marks"

    name: Mapped[str] = mapped_column(String(32), primary_key=True)
    made_at: Mapped[datetime] = mapped_column(UtcDateTime)
