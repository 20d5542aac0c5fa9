"""Settings of batch work and of the files that it is made of."""

from __future__ import annotations

from pydantic import Field

from supervisor.config.fields import Bytes, Count, StrictModel


class FilesSettings(StrictModel):
    """What may be uploaded to `/v1/files`."""

    max_bytes: Bytes = Field(200 * 1024**2, description="Largest file that may be uploaded.")
    total_bytes: Bytes = Field(
        10 * 1024**3,
        description="Bytes of all files, and of deleted ones that batches still read, beyond which no uploads are taken; one project has half of it.",
    )


class BatchSettings(StrictModel):
    """How much of the engines batch work may take (`/v1/batch` and `/v1/batches`)."""

    parallel: Count = Field(
        4,
        description="Requests of batch work that are on their way to one model at once; at most its engine's slots, fewer while clients wait.",
    )
