"""What Alembic runs: the connection is given by `supervisor.storage.database`."""

from __future__ import annotations

from alembic import context

from supervisor.storage.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
