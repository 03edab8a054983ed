"""Brings a database up to date, by Alembic; imported only where there is something to do."""

from __future__ import annotations

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection

from hyperfleet.store.database import MIGRATIONS


def migration_config() -> Config:
    """Alembic's configuration; there is no alembic.ini."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("path_separator", "os")
    return config


def upgrade(connection: Connection, revision: str) -> None:
    """Applies the migrations up to `revision` that the database lacks, in one transaction."""
    config = migration_config()
    config.attributes["connection"] = connection
    command.upgrade(config, revision)
