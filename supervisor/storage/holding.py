"""One database is one supervisor's: at its start it settles whatever is open there, which must not be another's work."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from supervisor.errors import LlamavisorError

LOCK = 7_307_491_936_522_920_306
"""Among the advisory locks of a database, ours."""
WAIT_SECONDS = 5.0
"""PostgreSQL may take a moment to notice that the supervisor before was killed."""
_NOT_AVAILABLE = "55P03"
# A machine that is gone without a word is noticed after half a minute.
_KEEPALIVES = ("SET tcp_keepalives_idle = 10", "SET tcp_keepalives_interval = 5", "SET tcp_keepalives_count = 4")


class DatabaseInUseError(LlamavisorError):
    """Another supervisor keeps its books in this database."""

    code, status = "database_in_use", 409


def hold_alone(engine: Engine) -> None:
    """Have a PostgreSQL database alone, until `engine` is disposed of or this process ends. Blocks.

    The lock is that of a connection of its own. DatabaseInUseError when another supervisor has it; SQLAlchemy's OperationalError when the database
    does not answer.
    """
    connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
    connection.detach()
    try:
        for setting in (*_KEEPALIVES, f"SET lock_timeout = {int(WAIT_SECONDS * 1_000)}"):
            connection.exec_driver_sql(setting)
        connection.execute(sa.select(sa.func.pg_advisory_lock(LOCK)))
    except sa.exc.OperationalError as error:
        connection.close()
        if getattr(error.orig, "sqlstate", None) != _NOT_AVAILABLE:
            raise
        raise DatabaseInUseError(
            "Another supervisor keeps its books in this database.",
            param="storage.url",
            remedy="Give each its own: any number of databases may be on one server.",
        ) from None
    sa.event.listen(engine, "engine_disposed", lambda _: connection.close())
