"""Alembic's entry: it always runs on the connection that `store.database` holds."""

from __future__ import annotations

from alembic import context

from hyperfleet.store.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    # SQLite changes a column by copying the table.
    render_as_batch=True,
    transaction_per_migration=False,
)
with context.begin_transaction():
    context.run_migrations()
