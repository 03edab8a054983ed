"""How a machine's last start went.

For operators: a column more, empty until a machine is started again.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("machines") as table:
        table.add_column(sa.Column("last_start", sa.JSON(none_as_null=True), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("machines") as table:
        table.drop_column("last_start")
