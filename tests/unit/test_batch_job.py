"""Batches over a real folder, with a clock that moves when told and an engine that is a function."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from supervisor.config import Settings
from supervisor.config.batch_settings import FilesSettings
from supervisor.errors import EngineDiedError, MalformedRequestError, NotAvailableError, NotFoundError
from supervisor.gateway.accounting.callers import Caller
from supervisor.gateway.batch.batches import Batches, TooManyBatchesError
from supervisor.gateway.batch.files import FilesFullError
from supervisor.gateway.batch.folder import BatchFolder
from supervisor.gateway.batch.objects import WINDOW_SECONDS, Batch, BatchStatus, Order
from supervisor.gateway.batch.prompts import read_prompts
from supervisor.gateway.batch.turns import Servers
from supervisor.gateway.calls import CHAT, Call
from supervisor.gateway.exchange import Answer
from supervisor.gateway.passage import Why
from supervisor.testing import FakeClock
from tests.fixtures.nursery import until

Engine = Callable[[Call], Awaitable[Answer]]
PAYER = Caller("payer", "key-1")
HELLO = {"messages": [{"role": "user", "content": "hello"}]}


def answer_of(status: int = 200) -> Answer:
    """An engine's answer."""
    return Answer(status, {}, b'{"choices": []}', False, 1.0)


async def at_once(call: Call) -> Answer:
    """An engine that answers."""
    return answer_of()


async def never(call: Call) -> Answer:
    """An engine that does not."""
    await asyncio.Event().wait()
    return answer_of()


class Bureau:
    """Batch work in a folder, which can be started again. `asked` holds who asked for what, `ends` why requests were cancelled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = FakeClock()
        self.engine: Engine = at_once
        self.asked: list[tuple[str, str | None, str | None]] = []
        self.ends: list[str | None] = []
        self.batches: Batches

    async def open(self, *, start: bool = True) -> None:
        """Take in what is there, and go on with it."""
        self.batches = Batches(self.folder, Settings(), self.clock, self)
        await self.batches.open()
        if start:
            self.batches.start()

    async def again(self) -> None:
        """End, and start anew."""
        await self.batches.close()
        await self.open()

    def servers_of(self, call: Call, caller: Caller) -> Servers:
        """See `asking.Engines`."""
        return Servers((str(call.model),))

    async def ask(self, call: Call, caller: Caller, batch_id: str | None, why: Why) -> Answer:
        """See `asking.Engines`."""
        self.asked.append((caller.project, caller.key_id, batch_id))
        try:
            return await self.engine(call)
        except asyncio.CancelledError:
            reason = why()
            self.ends.append(None if reason is None else reason.code)
            raise

    async def upload(self, text: str) -> str:
        """A file of the payer; its id."""
        async with self.batches.files.upload(PAYER.project) as upload:
            await upload.write(text.encode())
            return (await upload.finish("a.jsonl", "batch")).id

    async def create(self, count: int) -> Batch:
        """A batch of so many requests."""
        line: dict[str, Any] = {"method": "POST", "url": CHAT, "body": HELLO}
        text = "".join(json.dumps({**line, "custom_id": str(number)}) + "\n" for number in range(count))
        return await self.batches.create(Order(CHAT, await self.upload(text)), PAYER)

    def now(self, batch: Batch) -> Batch:
        """The batch as it is now."""
        return self.batches.get(batch.id, PAYER.project)

    async def over(self, batch: Batch) -> Batch:
        """The batch, once it is over."""
        await until(lambda: self.now(batch).is_over, "the end of the batch")
        return self.now(batch)

    def results(self, file_id: str | None) -> list[dict[str, Any]]:
        """The lines of a result file."""
        assert file_id is not None
        path = self.batches.files.path_of(self.batches.files.get(file_id, PAYER.project))
        return [json.loads(line) for line in path.read_bytes().splitlines()]


@pytest_asyncio.fixture
async def bureau(tmp_path: Path) -> AsyncIterator[Bureau]:
    """Open."""
    bureau = Bureau(tmp_path)
    await bureau.open()
    yield bureau
    await bureau.batches.close()


async def test_who_made_the_batch_pays_for_its_lines(bureau: Bureau) -> None:
    batch = await bureau.create(2)
    done = await bureau.over(batch)
    assert (done.status, done.completed) == ("completed", 2)
    assert bureau.asked == [("payer", "key-1", batch.id)] * 2
    assert done.error_file_id is None
    await until(lambda: not list((bureau.folder / "batches" / batch.id).glob("*.jsonl")), "the lines to be forgotten")


async def test_its_window_ends_a_batch_and_the_wall_clock_does_not(bureau: Bureau) -> None:
    bureau.engine = never
    batch = await bureau.create(6)
    await until(lambda: len(bureau.asked) == 4, "the first lines")
    bureau.clock.jump_wall(10 * WINDOW_SECONDS)
    bureau.clock.advance(WINDOW_SECONDS - 1)
    assert bureau.now(batch).status == "in_progress"
    bureau.clock.advance(1)
    done = await bureau.over(batch)
    assert (done.status, done.completed, done.failed, done.output_file_id) == ("expired", 0, 6, None)
    assert bureau.ends == ["batch_expired"] * 4
    assert {line["error"]["code"] for line in bureau.results(done.error_file_id)} == {"batch_expired"}


async def test_a_batch_that_was_being_finished_is_finished_after_the_next_start(bureau: Bureau) -> None:
    done = await bureau.over(await bureau.create(3))
    await bureau.batches.close()
    folder = BatchFolder(bureau.folder / "batches" / done.id)
    results = bureau.results(done.output_file_id)
    folder.output.write_text("".join(json.dumps(line) + "\n" for line in results))
    folder.input.write_text("")
    stamps = {name: at for name, at in done.stamps.items() if name != "completed"}
    folder.save(replace(done, status=BatchStatus.FINALIZING, stamps=stamps, output_file_id=None))
    await bureau.open()
    again = await bureau.over(done)
    assert (again.status, again.completed, again.output_file_id) == ("completed", 3, done.output_file_id)
    assert bureau.results(again.output_file_id) == results


async def test_a_line_that_breaks_something_does_not_break_the_batch(bureau: Bureau) -> None:
    async def broken(call: Call) -> Answer:
        if len(bureau.asked) == 1:
            raise RuntimeError("on purpose")
        return answer_of()

    bureau.engine = broken
    done = await bureau.over(await bureau.create(3))
    assert (done.status, done.completed, done.failed) == ("completed", 2, 1)
    (failed,) = bureau.results(done.error_file_id)
    assert failed["response"]["status_code"] == 500
    assert failed["response"]["body"]["error"]["code"] == "internal_error"


async def test_an_engine_that_is_gone_for_hours_is_waited_for(bureau: Bureau) -> None:
    async def crashed(call: Call) -> Answer:
        if bureau.clock.monotonic() < 3600:
            raise NotAvailableError("Not now.", code="crashed", retry_after_seconds=20)
        return answer_of()

    bureau.engine = crashed
    batch = await bureau.create(2)
    await until(lambda: len(bureau.asked) >= 2, "the first tries")
    while not bureau.now(batch).is_over:
        bureau.clock.advance(20)
        await asyncio.sleep(0.001)
    done = bureau.now(batch)
    assert (done.status, done.completed, done.failed) == ("completed", 2, 0)


async def test_an_engine_that_dies_of_a_line_gets_three_tries(bureau: Bureau) -> None:
    async def dying(call: Call) -> Answer:
        raise EngineDiedError("It died.")

    bureau.engine = dying
    batch = await bureau.create(1)
    while not bureau.now(batch).is_over:
        bureau.clock.advance(1)
        await asyncio.sleep(0.001)
    assert len(bureau.asked) == 3
    assert bureau.now(batch).failed == 1


async def test_cancelled_at_any_moment_each_line_has_one_result(bureau: Bureau) -> None:
    for moment in range(8):
        batch = await bureau.create(5)
        for _ in range(moment * 3):
            await asyncio.sleep(0)
        if not bureau.now(batch).is_over and bureau.now(batch).status != "finalizing":
            await bureau.batches.cancel(batch.id, PAYER.project)
        done = await bureau.over(batch)
        ids = [done.output_file_id, done.error_file_id]
        told = [line["custom_id"] for file_id in ids if file_id is not None for line in bureau.results(file_id)]
        assert sorted(told) == [str(number) for number in range(5)] if done.total else told == []
        assert len(told) == done.completed + done.failed == done.total


async def test_what_ends_the_lines_on_their_way_is_known(bureau: Bureau) -> None:
    bureau.engine = never
    batch = await bureau.create(2)
    await until(lambda: len(bureau.asked) == 2, "the lines")
    await bureau.batches.cancel(batch.id, PAYER.project)
    await bureau.over(batch)
    assert bureau.ends == ["batch_cancelled"] * 2
    await bureau.create(1)
    await until(lambda: len(bureau.asked) == 3, "another line")
    await bureau.batches.close()
    assert bureau.ends[2:] == [None]


async def test_stopped_at_any_moment_it_is_done_after_the_next_start(bureau: Bureau) -> None:
    batch = await bureau.create(30)
    for moment in range(10):
        for _ in range(moment * 2):
            await asyncio.sleep(0)
        await bureau.again()
    done = await bureau.over(batch)
    assert (done.status, done.completed, done.total) == ("completed", 30, 30)
    assert sorted(int(line["custom_id"]) for line in bureau.results(done.output_file_id)) == list(range(30))


async def test_the_window_runs_while_the_supervisor_does(bureau: Bureau) -> None:
    bureau.engine = never
    batch = await bureau.create(5)
    await until(lambda: len(bureau.asked) == 4, "its lines")
    bureau.clock.advance(WINDOW_SECONDS - 10)
    await bureau.again()
    await until(lambda: len(bureau.asked) == 8, "its lines again")
    bureau.clock.advance(9)
    assert bureau.now(batch).status == "in_progress"
    bureau.clock.advance(1)
    assert (await bureau.over(batch)).status == "expired"


async def test_row_61_at_rest_lines_on_their_way_finish_and_no_more_begin(bureau: Bureau) -> None:
    gate = asyncio.Event()

    async def slow(call: Call) -> Answer:
        await gate.wait()
        return answer_of()

    bureau.engine = slow
    batch = await bureau.create(9)
    await until(lambda: len(bureau.asked) == 4, "the first lines")
    bureau.batches.rest()
    gate.set()
    await until(lambda: not bureau.batches._tasks, "its owner to rest")
    assert len(bureau.asked) == 4
    assert (bureau.now(batch).status, bureau.now(batch).completed, bureau.now(batch).failed) == ("in_progress", 4, 0)
    with pytest.raises(NotAvailableError, match="shutting down"):
        await bureau.batches.create(batch.order, PAYER)
    await bureau.again()
    assert (await bureau.over(batch)).completed == 9
    assert len(bureau.asked) == 9


async def test_nobody_sees_another_projects_batches_and_files(bureau: Bureau) -> None:
    batch = await bureau.create(1)
    stranger = Caller("stranger")
    with pytest.raises(NotFoundError):
        bureau.batches.get(batch.id, stranger.project)
    with pytest.raises(NotFoundError):
        await bureau.batches.cancel(batch.id, stranger.project)
    with pytest.raises(NotFoundError):
        await bureau.batches.create(batch.order, stranger)
    assert bureau.batches.all_of(stranger.project) == []
    assert bureau.batches.files.all_of(stranger.project) == []


async def test_results_are_not_requests(bureau: Bureau) -> None:
    done = await bureau.over(await bureau.create(1))
    with pytest.raises(MalformedRequestError) as wrong:
        await bureau.batches.create(Order(CHAT, done.output_file_id or ""), PAYER)
    assert wrong.value.param == "input_file_id"


async def test_there_is_an_end_to_batches_that_have_none(bureau: Bureau, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("supervisor.gateway.batch.batches.UNFINISHED_MAX", 3)
    bureau.engine = never
    batches = [await bureau.create(1) for _ in range(3)]
    with pytest.raises(TooManyBatchesError) as many:
        await bureau.create(1)
    assert (many.value.status, many.value.retry_after_seconds) == (429, 60)
    await bureau.batches.cancel(batches[0].id, PAYER.project)
    await bureau.over(batches[0])
    await until(lambda: len(bureau.batches._tasks) < 3, "its owner to be gone")
    await bureau.create(1)


async def test_the_batches_of_others_are_in_nobodys_way(bureau: Bureau, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("supervisor.gateway.batch.batches.UNFINISHED_MAX", 1)
    bureau.engine = never
    await bureau.create(8)
    await until(lambda: len(bureau.asked) == 4, "the first lines")
    other = Caller("other", "key-2")
    async with bureau.batches.files.upload(other.project) as upload:
        await upload.write(json.dumps({"custom_id": "1", "method": "POST", "url": CHAT, "body": HELLO}).encode())
        file = await upload.finish("a.jsonl", "batch")
    await bureau.batches.create(Order(CHAT, file.id), other)
    prompts = read_prompts({"prompts": [{"prompt": "a"}], "model": "another"})
    bureau.engine = at_once
    assert (await bureau.batches.answer(prompts, other))["total"] == 1


async def test_what_batches_read_counts_though_its_file_was_deleted(bureau: Bureau) -> None:
    async def fits() -> bool:
        bureau.batches.files.settings = settings
        try:
            file_id = await bureau.upload("x" * size)
        except FilesFullError:
            return False
        await bureau.batches.files.delete(file_id, PAYER.project)
        return True

    bureau.engine = never
    batches = [await bureau.create(20)]
    (file,) = bureau.batches.files.all_of(PAYER.project)
    size, settings = file.bytes, FilesSettings(max_bytes=file.bytes, total_bytes=4 * file.bytes)
    batches.append(await bureau.batches.create(batches[0].order, PAYER))
    assert await fits()
    kept = await bureau.upload("x")
    assert not await fits()
    await bureau.batches.files.delete(file.id, PAYER.project)
    assert not await fits()
    await bureau.again()
    assert not await fits()
    for batch in batches:
        await bureau.batches.cancel(batch.id, PAYER.project)
        await bureau.batches.files.delete((await bureau.over(batch)).error_file_id or "", PAYER.project)
    await until(lambda: not bureau.batches._tasks, "the owners to be gone")
    assert await fits()
    assert [file.id for file in bureau.batches.files.all_of(PAYER.project)] == [kept]


async def test_what_a_kill_left_of_a_batch_that_was_over_is_removed(bureau: Bureau) -> None:
    done = await bureau.over(await bureau.create(1))
    await bureau.batches.close()
    left = BatchFolder(bureau.folder / "batches" / done.id).input
    left.write_text("{}")
    await bureau.open()
    assert not left.exists()
    assert bureau.now(done) == done


async def test_a_folder_that_cannot_be_read_is_left_alone(bureau: Bureau) -> None:
    done = await bureau.over(await bureau.create(1))
    folder = bureau.folder / "batches"
    (folder / "batch_odd").mkdir()
    (folder / "batch_odd" / "state.json").write_text("{")
    (folder / ".new-batch_1").mkdir()
    await bureau.again()
    assert [batch.id for batch in bureau.batches.all_of(PAYER.project)] == [done.id]
    assert sorted(path.name for path in folder.iterdir()) == sorted(["batch_odd", done.id])
