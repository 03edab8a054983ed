"""Machines that are started again by themselves: how often, when next, in which boot of the host.

For operators: three columns more; machines that are there get none of it until they are asked to.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("machines") as table:
        table.add_column(sa.Column("restarts", sa.Integer(), nullable=False, server_default="0"))
        table.add_column(sa.Column("next_start_at", sa.DateTime(), nullable=True))
        table.add_column(sa.Column("host_boot", sa.String(36), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("machines") as table:
        for name in ("host_boot", "next_start_at", "restarts"):
            table.drop_column(name)
