"""Settings of what is kept."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, SecretStr, model_validator

from supervisor.config.fields import Count, Seconds, StrictModel, refuse


class StorageSettings(StrictModel):
    """Where usage records, projects and keys are kept."""

    url: Annotated[SecretStr, Field(min_length=1, max_length=2048)] | None = Field(
        None,
        description="PostgreSQL database (`postgresql://…`), of this supervisor alone; left out, an SQLite file in the data folder.",
    )
    retention_days: Count = Field(
        400, ge=32, description="Days that usage records are kept; budgets of a month are reckoned from them."
    )
    sync_seconds: Seconds = Field(
        0.2, description="Longest time after which what was written is on the disk: a power cut costs no more."
    )
    write_seconds: Seconds = Field(
        0.5, description="Time that usage records are collected before they go to the database."
    )

    @model_validator(mode="after")
    def _known_database(self) -> Self:
        url = self.url.get_secret_value() if self.url is not None else None
        if url is not None and not url.startswith(("postgresql://", "postgres://")):
            refuse([("url", "`url` names no PostgreSQL database", "begin it with postgresql://, or leave it out")])
        return self
