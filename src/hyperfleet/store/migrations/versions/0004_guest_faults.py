"""What a machine's guest did against the agent's protocol.

For operators: a column more, empty.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("machines") as table:
        table.add_column(sa.Column("guest_fault", sa.String(), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("machines") as table:
        table.drop_column("guest_fault")
