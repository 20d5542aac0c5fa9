"""The owner of one batch: it alone changes it, from its validation to its end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from supervisor.clock import Clock
from supervisor.errors import EngineDeadlineError, LlamavisorError, RequestCancelledError
from supervisor.gateway.accounting.callers import Caller
from supervisor.gateway.batch import lines
from supervisor.gateway.batch.asking import Desk, Terms, call_of
from supervisor.gateway.batch.disk import Disk
from supervisor.gateway.batch.files import FileStore
from supervisor.gateway.batch.folder import SYNC_SECONDS, BatchFolder, LineReader, ResultFiles
from supervisor.gateway.batch.lines import BadLineError, Line, Reply, read_line
from supervisor.gateway.batch.objects import Batch, BatchStatus, Fault
from supervisor.gateway.batch.pending import SLICE_BYTES, SLICE_LINES, Pending
from supervisor.gateway.calls import new_request_id
from supervisor.storage.records import Scope

logger = logging.getLogger(__name__)

FAULTS_MAX = 20
# None would mean that it ran out.
LEFT_MIN_SECONDS = 1.0
_STOPPED: Mapping[BatchStatus, LlamavisorError] = {
    BatchStatus.CANCELLING: RequestCancelledError(
        "This request was not executed before the batch was cancelled.", code="batch_cancelled"
    ),
    BatchStatus.FINALIZING: EngineDeadlineError(
        "This request could not be executed before the window expired.", code="batch_expired"
    ),
}


@dataclass(frozen=True, slots=True)
class Means:
    """What every job works with."""

    desk: Desk
    files: FileStore
    disk: Disk
    clock: Clock

    def now_seconds(self) -> int:
        """Unix time, for stamps."""
        return int(self.clock.wall())


class Job:
    """One batch on its way. `run` is its owner task; `batch` is how it is now."""

    def __init__(self, batch: Batch, folder: BatchFolder, means: Means) -> None:
        self._batch = batch
        self._folder = folder
        self._means = means
        self._results = ResultFiles(folder)
        self._phase: asyncio.Task[None] | None = None
        self._is_resting = False
        self._begun_at = means.clock.monotonic()
        payer = Caller(batch.project, batch.key_id, frozenset({Scope.INFERENCE}))
        self._terms = Terms(payer, batch.id, self._why, lines.wait_seconds, lambda: self._is_resting)
        self._synced_at = self._begun_at

    @property
    def batch(self) -> Batch:
        """The batch as it is now."""
        if self._batch.is_over or not self._batch.was_validated:
            return self._batch
        return replace(self._batch, completed=self._results.completed, failed=self._results.failed)

    async def cancel(self) -> None:
        """Answer no more lines; what was answered is kept. StateConflictError unless it is on its way."""
        if self._batch.status is not BatchStatus.CANCELLING:
            self._enter(BatchStatus.CANCELLING)
            self._end_phase()
        await self._save()

    def rest(self) -> None:
        """Begin no more lines; those on their way may finish. The next start goes on."""
        self._is_resting = True

    async def run(self) -> None:
        """Bring the batch to its end, or to where it rests."""
        try:
            await self._go_on()
        except Exception:
            logger.exception("The batch %s failed.", self._batch.id)
            if not self._batch.is_over:
                message = "An unexpected failure; the server's log has it under the batch's id."
                await self._fail((Fault("internal_error", message),))
        finally:
            self._means.disk.later(self._results.close)
            if self._batch.is_over:
                self._means.disk.later(self._folder.forget_lines)
            else:
                self._note_time()
                self._means.disk.later(partial(self._folder.save, self._batch))

    async def _go_on(self) -> None:
        await self._means.disk(self._results.open)
        if self._batch.status is BatchStatus.VALIDATING:
            await self._during(self._validate())
        if self._batch.status is BatchStatus.IN_PROGRESS:
            await self._work()
        if self._batch.status in _STOPPED:
            await self._finish()

    async def _work(self) -> None:
        """Until every line has a result, or somebody or the clock ends it."""
        expiry = self._means.clock.call_later(self._batch.seconds_left, self._expire)
        try:
            await self._during(self._answer_all())
        finally:
            expiry.cancel()
        if self._batch.status is BatchStatus.IN_PROGRESS and len(self._results.done) >= self._batch.total:
            self._enter(BatchStatus.FINALIZING)
        await self._save()

    def _expire(self) -> None:
        if self._batch.status is BatchStatus.IN_PROGRESS:
            self._begun_at = self._means.clock.monotonic()
            self._enter(BatchStatus.FINALIZING, seconds_left=0.0)
            self._end_phase()

    async def _during(self, work: Coroutine[Any, Any, None]) -> None:
        """Do `work` until it is done or `_end_phase` is called."""
        self._phase = asyncio.create_task(work, name=f"{self._batch.id}:lines")
        try:
            await asyncio.wait({self._phase})
        finally:
            self._end_phase()
            await asyncio.wait({self._phase})
        if not self._phase.cancelled():
            self._phase.result()

    def _end_phase(self) -> None:
        if self._phase is not None:
            self._phase.cancel()

    # Validation

    async def _validate(self) -> None:
        reader, seen, faults, count = LineReader(self._folder.input), set[str](), list[Fault](), 0
        try:
            while slice_ := await self._means.disk(lambda: reader.take(SLICE_LINES, SLICE_BYTES)):
                count += len(slice_)
                faults += [fault for number, raw in slice_ if (fault := self._fault_of(number, raw, seen)) is not None]
                if len(faults) >= FAULTS_MAX or count > lines.LINES_MAX:
                    break
        finally:
            self._means.disk.later(reader.close)
        if count > lines.LINES_MAX:
            faults.append(Fault("too_many_lines", f"The file has more than {lines.LINES_MAX} lines."))
        if not count:
            faults.append(Fault("empty_file", "The file holds no requests."))
        if faults:
            await self._fail(tuple(faults[:FAULTS_MAX]))
        else:
            self._enter(BatchStatus.IN_PROGRESS, total=count)
            await self._save()

    def _fault_of(self, number: int, raw: bytes, seen: set[str]) -> Fault | None:
        try:
            line = read_line(number, raw, self._batch.order.endpoint)
        except BadLineError as error:
            return error.fault
        if line.custom_id in seen:
            message = "Another line has the same `custom_id`."
            return Fault("duplicate_custom_id", message, number, "custom_id")
        seen.add(line.custom_id)
        return None

    # Lines

    async def _answer_all(self) -> None:
        self._begun_at = self._means.clock.monotonic()
        pending = Pending(self._batch.order.endpoint, LineReader(self._folder.input), self._results, self._means.disk)
        try:
            async with asyncio.TaskGroup() as lanes:
                for number in range(min(self._means.desk.turns.parallel, self._batch.total)):
                    lanes.create_task(self._lane(pending), name=f"{self._batch.id}:{number}")
        finally:
            pending.close()

    async def _lane(self, pending: Pending) -> None:
        while not self._is_resting and (line := await pending.next()) is not None:
            reply = await self._reply_to(line)
            if reply is not None:
                await self._keep(line.number, lines.answered(self._batch.id, line, reply), is_answer=reply.is_answer)

    async def _reply_to(self, line: Line) -> Reply | None:
        """What goes into the files; None when it rests before it is known."""
        try:
            call = call_of(self._batch.order.endpoint, line)
        except LlamavisorError as error:
            return lines.failure(error, new_request_id())
        return await self._means.desk.answer(call, self._terms)

    def _why(self) -> LlamavisorError | None:
        """What ends the requests that are on their way; None: the supervisor ends, and asks again after the next start."""
        return _STOPPED.get(self._batch.status)

    async def _keep(self, number: int, result: bytes, *, is_answer: bool) -> None:
        """Add a result to the files. Whoever is cancelled meanwhile leaves it to the disk: done or not, `ResultFiles` knows."""
        append = partial(self._results.append, number, result, is_answer=is_answer)
        await self._means.disk.until_done(append, f"A result of {self._batch.id}")
        if self._means.clock.monotonic() - self._synced_at >= SYNC_SECONDS:
            self._synced_at = self._means.clock.monotonic()
            await self._means.disk.until_done(self._results.sync, f"The results of {self._batch.id}")
            await self._save()

    # The end

    async def _finish(self) -> None:
        """Say of each line that has no result why, and make files of the results."""
        batch = self._batch
        if batch.was_validated:
            await self._give_up_lines(_STOPPED[batch.status])
        await self._means.disk.until_done(self._results.sync, f"The results of {batch.id}")
        output = await self._adopt("output") if self._results.completed else None
        errors = await self._adopt("errors") if self._results.failed else None
        ending = BatchStatus.EXPIRED if batch.has_expired else BatchStatus.COMPLETED
        if batch.status is BatchStatus.CANCELLING:
            ending = BatchStatus.CANCELLED
        counts = {"completed": self._results.completed, "failed": self._results.failed}
        self._enter(ending, output_file_id=output, error_file_id=errors, **counts)
        await self._save()

    async def _give_up_lines(self, reason: LlamavisorError) -> None:
        # Results that were on their way to the disk when their lanes were cancelled are there before these lines are read: it is one thread.
        pending = Pending(self._batch.order.endpoint, LineReader(self._folder.input), self._results, self._means.disk)
        try:
            while (line := await pending.next()) is not None:
                result = lines.unanswered(self._batch.id, line, reason.code, reason.message)
                await self._keep(line.number, result, is_answer=False)
        finally:
            pending.close()

    async def _adopt(self, kind: str) -> str:
        """Make a file of the results of one kind. Its id follows from the batch's, so that doing it again changes nothing."""
        file_id = f"file-{self._batch.id.removeprefix('batch_')}-{kind}"
        path = self._folder.errors if kind == "errors" else self._folder.output
        await self._means.files.adopt(path, file_id, self._batch.project, f"{self._batch.id}_{kind}.jsonl")
        return file_id

    async def _fail(self, faults: tuple[Fault, ...]) -> None:
        self._enter(BatchStatus.FAILED, faults=faults)
        await self._save()

    def _enter(self, status: BatchStatus, **changes: Any) -> None:
        self._batch = self._batch.entered(status, self._means.now_seconds(), **changes)

    async def _save(self) -> None:
        self._note_time()
        batch = self._batch
        await self._means.disk.until_done(lambda: self._folder.save(batch), f"The state of {batch.id}")

    def _note_time(self) -> None:
        """Take what has passed since the last time off the window."""
        now = self._means.clock.monotonic()
        if self._batch.status is BatchStatus.IN_PROGRESS:
            left = max(self._batch.seconds_left - (now - self._begun_at), LEFT_MIN_SECONDS)
            self._batch = replace(self._batch, seconds_left=left)
        self._begun_at = now
