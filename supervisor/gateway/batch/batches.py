"""Batch work as a whole: the files, the batches that are made of them, and lists of prompts."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from supervisor.clock import Clock
from supervisor.config.settings import Settings
from supervisor.data_folder import PRIVATE_FOLDER
from supervisor.errors import LlamavisorError, NotAvailableError, NotFoundError
from supervisor.gateway.accounting.callers import Caller
from supervisor.gateway.batch.asking import Desk, Engines
from supervisor.gateway.batch.disk import Disk
from supervisor.gateway.batch.files import UPLOADED_PURPOSE, FileStore
from supervisor.gateway.batch.folder import NEW_PREFIX, BatchFolder
from supervisor.gateway.batch.job import Job, Means
from supervisor.gateway.batch.objects import Batch, Order
from supervisor.gateway.batch.prompts import PromptList, answer_prompts, summary
from supervisor.request_fields import refuse

logger = logging.getLogger(__name__)

# Of one project. Each has three files open.
UNFINISHED_MAX = 100
KEPT_MAX = 10_000
RETRY_SECONDS = 60.0


class TooManyBatchesError(LlamavisorError):
    """So many batches of the project are on their way that no more of it are taken."""

    code, status = "too_many_batches", 429


class Batches:
    """See the module. `open` it, `start` it when engines may be asked, `rest` it when the supervisor drains, `close` it before the engines go."""

    def __init__(self, folder: Path, settings: Settings, clock: Clock, engines: Engines) -> None:
        self._folder = folder / "batches"
        self._disk = Disk(clock)
        self.files = FileStore(folder / "files", settings.files, self._disk, clock)
        self._desk = Desk(engines, settings.batches.parallel, clock)
        self.turns = self._desk.turns
        self._means = Means(self._desk, self.files, self._disk, clock)
        self._jobs: dict[str, Job] = {}
        self._tasks: dict[asyncio.Task[None], Job] = {}
        self._is_resting = False

    async def open(self) -> None:
        """Take in what is there. LlamavisorError when the data folder cannot be used."""
        try:
            found = await self._disk(self._load)
        except OSError as error:
            raise LlamavisorError(
                f"The files of batches in {self._folder.parent} cannot be used: {error.strerror or error}.",
                code="data_folder_unusable",
                remedy="Mend its permissions, or choose another folder with --data-dir.",
            ) from error
        self._jobs = {batch.id: Job(batch, self._folder_of(batch.id), self._means) for batch in found}

    def start(self) -> None:
        """Go on with every batch that is not over."""
        for job in self._jobs.values():
            if not job.batch.is_over:
                self._begin(job)

    def retune(self, settings: Settings) -> None:
        """Take new settings, for work that begins from now on."""
        self.files.settings = settings.files
        self.turns.retune(settings.batches.parallel)

    def rest(self) -> None:
        """Begin nothing more; requests that are on their way may finish. What is left is done after the next start."""
        self._is_resting = True
        for job in self._jobs.values():
            job.rest()

    async def close(self) -> None:
        """Stop at once, without a word in any result: the next start goes on from what is written. Idempotent."""
        self.rest()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._disk.close()

    async def create(self, order: Order, caller: Caller) -> Batch:
        """A new batch of an uploaded file. NotFoundError, MalformedRequestError, TooManyBatchesError, DiskFullError."""
        self._check_takes_work(caller.project)
        source = self.files.get(order.input_file_id, caller.project)
        if source.purpose != UPLOADED_PURPOSE:
            raise refuse("input_file_id", f"must be a file with the purpose {UPLOADED_PURPOSE}.")
        batch_id = f"batch_{uuid.uuid4().hex}"
        stamps = {"created": self._means.now_seconds()}
        batch = Batch(batch_id, caller.project, caller.key_id, order, stamps=stamps)
        folder = self._folder_of(batch_id)
        try:
            await self._disk(lambda: folder.create(batch, self.files.path_of(source)))
        except FileNotFoundError:
            raise NotFoundError("The file was deleted meanwhile.", code="file_not_found") from None
        self._jobs[batch_id] = job = Job(batch, folder, self._means)
        self.files.use(source.id, source.project, source.bytes)
        self._begin(job)
        self._forget_oldest()
        return batch

    def all_of(self, project: str) -> list[Batch]:
        """The batches of a project, the newest first."""
        return [job.batch for job in reversed(self._jobs.values()) if job.batch.project == project]

    def get(self, batch_id: str, project: str) -> Batch:
        """One of them; NotFoundError, also for another project's."""
        return self._job(batch_id, project).batch

    async def cancel(self, batch_id: str, project: str) -> Batch:
        """Answer no more of its lines; what was answered is kept. NotFoundError; StateConflictError when it is over, or nearly."""
        job = self._job(batch_id, project)
        await job.cancel()
        return job.batch

    async def answer(self, wanted: PromptList, caller: Caller) -> dict[str, Any]:
        """The answer to a list of prompts, as it goes over the wire."""
        return summary(await answer_prompts(wanted, caller, self._desk))

    def _job(self, batch_id: str, project: str) -> Job:
        job = self._jobs.get(batch_id)
        if job is None or job.batch.project != project:
            raise NotFoundError("There is no such batch.", code="batch_not_found", param="batch_id")
        return job

    def _check_takes_work(self, project: str) -> None:
        if self._is_resting:
            raise NotAvailableError("The server is shutting down.", code="shutting_down")
        if sum(job.batch.project == project for job in self._tasks.values()) >= UNFINISHED_MAX:
            raise TooManyBatchesError(
                f"{UNFINISHED_MAX} batches of the project are not finished yet.",
                remedy="Wait for one, or cancel one.",
                retry_after_seconds=RETRY_SECONDS,
            )

    def _begin(self, job: Job) -> None:
        task = asyncio.create_task(self._run(job), name=job.batch.id)
        self._tasks[task] = job
        task.add_done_callback(self._tasks.pop)

    async def _run(self, job: Job) -> None:
        await job.run()
        if job.batch.is_over:
            self.files.give_back(job.batch.order.input_file_id, job.batch.project)

    def _forget_oldest(self) -> None:
        over = [batch_id for batch_id, job in self._jobs.items() if job.batch.is_over]
        for batch_id in over[: max(0, len(self._jobs) - KEPT_MAX)]:
            del self._jobs[batch_id]
            self._disk.later(self._folder_of(batch_id).remove)

    def _folder_of(self, batch_id: str) -> BatchFolder:
        return BatchFolder(self._folder / batch_id)

    # In the disk's thread

    def _load(self) -> list[Batch]:
        self._folder.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
        self.files.load()
        return sorted(self._read_all(), key=lambda batch: (batch.stamps["created"], batch.id))

    def _read_all(self) -> Iterator[Batch]:
        for path in self._folder.iterdir():
            folder = BatchFolder(path)
            if path.name.startswith(NEW_PREFIX):
                folder.remove()
                continue
            try:
                batch = folder.load()
            except (OSError, ValueError, TypeError, KeyError):
                logger.warning("%s holds no batch that can be read: it is left out.", path)
                continue
            if batch.is_over:
                # The last supervisor may have been killed before it did.
                folder.forget_lines()
            else:
                self.files.use(batch.order.input_file_id, batch.project, folder.input_bytes())
            yield batch
