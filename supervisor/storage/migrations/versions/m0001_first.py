"""The first shape."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make every table."""
    op.create_table(
        "projects",
        sa.Column("name", sa.Text(), primary_key=True),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("requests_per_minute", sa.BigInteger()),
        sa.Column("tokens_per_minute", sa.BigInteger()),
        sa.Column("concurrency", sa.BigInteger()),
    )
    op.create_table(
        "usage_records",
        sa.Column("id", sa.Text(), primary_key=True),
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("key_id", sa.Text()),
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("surface", sa.Text(), nullable=False),
        sa.Column("stream", sa.Boolean(), nullable=False),
        sa.Column("accepted_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("client_request_id", sa.Text()),
        sa.Column("batch_id", sa.Text()),
        sa.Column("price_input_micros", sa.BigInteger()),
        sa.Column("price_output_micros", sa.BigInteger()),
        sa.Column("reserved_micros", sa.BigInteger(), nullable=False),
        sa.Column("reserved_tokens", sa.BigInteger(), nullable=False),
        sa.Column("outcome", sa.Text()),
        sa.Column("prompt_tokens", sa.BigInteger(), nullable=False),
        sa.Column("completion_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cached_tokens", sa.BigInteger(), nullable=False),
        sa.Column("token_source", sa.Text(), nullable=False),
        sa.Column("cost_micros", sa.BigInteger()),
        sa.Column("settled_at_ms", sa.BigInteger()),
        sa.Column("error_code", sa.Text()),
        sa.Column("model", sa.Text()),
        sa.Column("instance", sa.Text()),
        sa.Column("revision", sa.Integer()),
        sa.Column("route_reason", sa.Text()),
        sa.Column("queued_ms", sa.Float()),
        sa.Column("first_byte_ms", sa.Float()),
        sa.Column("total_ms", sa.Float()),
        sa.Column("energy_millijoules", sa.BigInteger()),
        sa.Column("co2_micrograms", sa.BigInteger()),
        sa.Column("energy_method", sa.Text()),
    )
    op.create_index("ix_usage_accepted", "usage_records", ["accepted_at_ms", "id"])
    op.create_index("ix_usage_client_request", "usage_records", ["client_request_id"])
    op.create_index("ix_usage_open", "usage_records", ["outcome", "accepted_at_ms"])
    op.create_index("ix_usage_project_accepted", "usage_records", ["project", "accepted_at_ms"])
    op.create_table(
        "budgets",
        sa.Column("project", sa.Text(), sa.ForeignKey("projects.name"), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("period", sa.Text(), nullable=False),
        sa.Column("unit", sa.Text(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("project", "key_id", "period", "unit"),
    )
    op.create_table(
        "keys",
        sa.Column("id", sa.Text(), primary_key=True),
        sa.Column("project", sa.Text(), sa.ForeignKey("projects.name"), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("secret_sha256", sa.Text(), nullable=False),
        sa.Column("scopes", sa.Text(), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("expires_at_ms", sa.BigInteger()),
        sa.Column("revoked_at_ms", sa.BigInteger()),
        sa.Column("requests_per_minute", sa.BigInteger()),
        sa.Column("tokens_per_minute", sa.BigInteger()),
        sa.Column("concurrency", sa.BigInteger()),
    )
    op.create_index("ix_keys_project", "keys", ["project"])
