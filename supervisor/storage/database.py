"""Opening the database: SQLite in the data folder, or PostgreSQL by URL. What cannot be trusted is refused, and left as it is (row 57)."""

from __future__ import annotations

import os
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from supervisor.data_folder import PRIVATE_FILE
from supervisor.errors import LlamavisorError
from supervisor.storage.holding import hold_alone
from supervisor.storage.tables import metadata

FILE_NAME = "llamavisor.db"
HEAD_REVISION = "0002"
"""The newest shape; `migrations/versions` leads there."""
BUSY_SECONDS = 5.0
_VERSION_TABLE = "alembic_version"
_versions = sa.Table(_VERSION_TABLE, sa.MetaData(), sa.Column("version_num", sa.String(32), primary_key=True))
"""As Alembic makes it."""


class StorageRefusedError(LlamavisorError):
    """The database is damaged, half made, or of a newer Llamavisor: nothing is read from it or written to it."""

    code, status = "storage_refused", 500


class StorageUnavailableError(LlamavisorError):
    """The database does not answer now."""

    code, status = "storage_unavailable", 503


def open_sqlite(folder: Path) -> Engine:
    """The SQLite database of a data folder, brought to the newest shape. StorageRefusedError when it cannot be trusted.

    A change of shape is made on a copy that then takes the place of the original, of which a backup is kept beside it: whenever it is
    interrupted, one of both is whole.
    """
    path = folder / FILE_NAME
    copy = path.with_suffix(".migrating")
    for leftover in folder.glob(f"{copy.name}*"):
        leftover.unlink()
    revision = None
    if path.exists():
        revision = _checked_revision(path)
        if revision == HEAD_REVISION:
            return _sqlite_engine(path)
        _back_up(path, path.with_name(f"{FILE_NAME}.bak-{revision}"))
        _back_up(path, copy)
    _prepare_copy(copy, revision)
    os.replace(copy, path)
    return _sqlite_engine(path)


def open_url(url: str) -> Engine:
    """The database at `url` (PostgreSQL), brought to the newest shape in one transaction. Errors as `open_sqlite`, and StorageUnavailableError."""
    try:
        parsed = sa.make_url(url)
        engine = sa.create_engine(parsed.set(drivername="postgresql+psycopg"), pool_pre_ping=True)
    except (sa.exc.ArgumentError, ModuleNotFoundError) as error:
        raise StorageRefusedError(
            f"The database cannot be used: {error}.",
            param="storage.url",
            remedy="Write postgresql://USER:PASSWORD@HOST/NAME, and install `llamavisor[postgres]`.",
        ) from None
    try:
        hold_alone(engine)
        with engine.begin() as connection:
            revision = _revision(connection)
            if revision != HEAD_REVISION:
                _renew(connection, revision)
    except sa.exc.OperationalError as error:
        engine.dispose()
        raise StorageUnavailableError(
            f"The database does not answer: {_first_line(error)}.", param="storage.url", remedy="Check `storage.url`."
        ) from None
    return engine


def _sqlite_engine(path: Path) -> Engine:
    engine = sa.create_engine(f"sqlite:///{path}", connect_args={"timeout": BUSY_SECONDS})

    @sa.event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: object) -> None:
        # NORMAL: a power cut may cost the last transactions, which the journal still has; a kill costs nothing.
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    return engine


def _checked_revision(path: Path) -> str:
    """The shape of an existing file. StorageRefusedError unless it is whole, and of a shape that we know."""
    try:
        connection = sqlite3.connect(f"file:{path}?mode=rw", uri=True, timeout=BUSY_SECONDS)
        try:
            verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            named = (
                connection.execute(f"SELECT version_num FROM {_VERSION_TABLE}").fetchall()
                if _VERSION_TABLE in tables
                else []
            )
        finally:
            connection.close()
    except sqlite3.DatabaseError as error:
        raise _refused(path, f"it is damaged ({error})") from None
    if verdict != "ok":
        raise _refused(path, f"it is damaged ({verdict})")
    return _known(str(path), [row[0] for row in named])


def _revision(connection: Connection) -> str | None:
    """The shape of an open database; None when it is empty."""
    tables = set(sa.inspect(connection).get_table_names())
    if _VERSION_TABLE not in tables:
        if tables & {"usage_records", "projects"}:
            raise _refused("The database", "its making was not finished")
        return None
    rows = connection.execute(sa.text(f"SELECT version_num FROM {_VERSION_TABLE}")).fetchall()
    return _known("The database", [row[0] for row in rows])


def _known(where: str, revisions: list[str]) -> str:
    if len(revisions) != 1:
        raise _refused(where, "its making was not finished")
    if revisions[0] > HEAD_REVISION:
        raise _refused(where, f"it is of a newer Llamavisor (shape {revisions[0]}; this one knows {HEAD_REVISION})")
    return revisions[0]


def _refused(where: object, why: str) -> StorageRefusedError:
    return StorageRefusedError(
        f"{where} is refused: {why}.",
        param="storage.url",
        remedy="Nothing was changed. Put a backup in its place, or move it away to begin anew.",
    )


def _back_up(path: Path, to: Path) -> None:
    """A consistent copy, through SQLite itself: the file alone may lack what is in the write-ahead log."""
    source, target = sqlite3.connect(path), sqlite3.connect(to)
    try:
        source.backup(target)
    finally:
        target.close()
        source.close()
    shutil.copymode(path, to)


def _prepare_copy(path: Path, revision: str | None) -> None:
    path.touch(mode=PRIVATE_FILE)
    engine = sa.create_engine(f"sqlite:///{path}", poolclass=sa.NullPool)
    with engine.begin() as connection:
        _renew(connection, revision)
    engine.dispose()
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def _renew(connection: Connection, revision: str | None) -> None:
    """Bring a database of that shape (None: it is empty) to the newest."""
    _make(connection) if revision is None else _migrate(connection)


def _make(connection: Connection) -> None:
    """The newest shape at once; a test compares it with what the migrations lead to."""
    metadata.create_all(connection)
    _versions.create(connection)
    connection.execute(_versions.insert().values(version_num=HEAD_REVISION))


def _migrate(connection: Connection) -> None:
    # Half a second to import, so only for a database that is older than we are.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _first_line(error: Exception) -> str:
    return str(getattr(error, "orig", error)).strip().partition("\n")[0]
