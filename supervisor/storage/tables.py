"""The tables, as SQLAlchemy Core sees them. `migrations/` makes them; a test compares the two."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
)

metadata = MetaData()

projects = Table(
    "projects",
    metadata,
    Column("name", Text, primary_key=True),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("requests_per_minute", BigInteger),
    Column("tokens_per_minute", BigInteger),
    Column("concurrency", BigInteger),
    # One that is removed keeps its row: revoked keys, which stay for what they used, refer to it.
    Column("removed_at_ms", BigInteger),
)

keys = Table(
    "keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project", Text, ForeignKey("projects.name"), nullable=False, index=True),
    Column("label", Text, nullable=False),
    Column("secret_sha256", Text, nullable=False),
    Column("scopes", Text, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("expires_at_ms", BigInteger),
    Column("revoked_at_ms", BigInteger),
    Column("requests_per_minute", BigInteger),
    Column("tokens_per_minute", BigInteger),
    Column("concurrency", BigInteger),
)

budgets = Table(
    "budgets",
    metadata,
    Column("project", Text, ForeignKey("projects.name"), nullable=False),
    # Nothing: the budget of the project as a whole. NULL could not be part of the key.
    Column("key_id", Text, nullable=False),
    Column("period", Text, nullable=False),
    Column("unit", Text, nullable=False),
    Column("amount", BigInteger, nullable=False),
    PrimaryKeyConstraint("project", "key_id", "period", "unit"),
)

# The columns of AcceptedRequest and of Settlement side by side; what is of the settlement is NULL while the request is on its way.
usage_records = Table(
    "usage_records",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project", Text, nullable=False),
    Column("key_id", Text),
    Column("endpoint", Text, nullable=False),
    Column("surface", Text, nullable=False),
    Column("stream", Boolean, nullable=False),
    Column("accepted_at_ms", BigInteger, nullable=False),
    Column("client_request_id", Text),
    Column("batch_id", Text),
    Column("price_input_micros", BigInteger),
    Column("price_output_micros", BigInteger),
    Column("reserved_micros", BigInteger, nullable=False),
    Column("reserved_tokens", BigInteger, nullable=False),
    Column("outcome", Text),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("token_source", Text, nullable=False),
    Column("cost_micros", BigInteger),
    Column("settled_at_ms", BigInteger),
    Column("error_code", Text),
    Column("model", Text),
    Column("instance", Text),
    Column("revision", Integer),
    Column("route_reason", Text),
    Column("queued_ms", Float),
    Column("first_byte_ms", Float),
    Column("total_ms", Float),
    Column("energy_millijoules", BigInteger),
    Column("co2_micrograms", BigInteger),
    Column("energy_method", Text),
    Index("ix_usage_accepted", "accepted_at_ms", "id"),
    Index("ix_usage_project_accepted", "project", "accepted_at_ms"),
    Index("ix_usage_client_request", "client_request_id"),
    Index("ix_usage_open", "outcome", "accepted_at_ms"),
)
