"""Projects can be removed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Keep when a project was removed."""
    op.add_column("projects", sa.Column("removed_at_ms", sa.BigInteger()))
