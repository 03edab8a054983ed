"""Addresses of removed machines that rest before another machine gets them.

For operators: one table more, empty; only machines that are attached by tap use it.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "resting_addresses",
        sa.Column("guest_ip", sa.String(15), nullable=False),
        sa.Column("since", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("guest_ip", name=op.f("pk_resting_addresses")),
    )


def downgrade() -> None:
    op.drop_table("resting_addresses")
