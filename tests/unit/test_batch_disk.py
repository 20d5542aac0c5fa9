"""What batch work has on disk: whole or not there, whatever ends the process and however full the disk is."""

from __future__ import annotations

import asyncio
import json
import os
import resource
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from supervisor.config.batch_settings import FilesSettings
from supervisor.errors import NotFoundError, PayloadTooLargeError
from supervisor.gateway.batch.disk import RETRY_SECONDS, Disk, DiskFullError
from supervisor.gateway.batch.files import WRITE_BYTES, FilesFullError, FileStore
from supervisor.gateway.batch.folder import BatchFolder, LineReader, ResultFiles
from supervisor.gateway.batch.lines import LINE_BYTES_MAX, result_id
from supervisor.gateway.batch.objects import Batch, Order
from supervisor.gateway.calls import CHAT
from supervisor.testing import FakeClock
from tests.fixtures.nursery import until

BATCH = Batch("batch_1", "p", None, Order(CHAT, "file-1"), stamps={"created": 1})


@pytest_asyncio.fixture
async def disk() -> AsyncIterator[Disk]:
    """The thread of a store."""
    disk = Disk(FakeClock())
    yield disk
    await disk.close()


def store_in(folder: Path, disk: Disk, **settings: int) -> FileStore:
    """A store as it is after a start."""
    store = FileStore(folder / "files", FilesSettings(**settings), disk, FakeClock())
    store.load()
    return store


def names(folder: Path) -> set[str]:
    """What lies in the folder of the files."""
    return {path.name for path in (folder / "files").iterdir()}


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file may grow beyond `size` meanwhile, as if the disk had no more room."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# Files


async def test_a_file_is_there_when_it_is_whole_and_after_the_next_start(tmp_path: Path, disk: Disk) -> None:
    store = store_in(tmp_path, disk)
    async with store.upload("p") as upload:
        await upload.write(b"x" * WRITE_BYTES)
        await upload.write(b"end")
        assert store.all_of("p") == []
        file = await upload.finish("a.jsonl", "batch")
    assert file.bytes == WRITE_BYTES + 3
    assert store.uploading_bytes.total() == 0
    again = store_in(tmp_path, disk)
    assert again.all_of("p") == [file]
    assert again.path_of(file).read_bytes().endswith(b"xend")
    with pytest.raises(NotFoundError):
        again.get(file.id, "another project")
    await again.delete(file.id, "p")
    assert names(tmp_path) == set()


async def test_an_upload_that_ends_early_leaves_nothing(tmp_path: Path, disk: Disk) -> None:
    store = store_in(tmp_path, disk)

    async def upload_for_ever() -> None:
        async with store.upload("p") as upload:
            await upload.write(b"x" * WRITE_BYTES)
            await asyncio.Event().wait()

    task = asyncio.create_task(upload_for_ever())
    await until(lambda: names(tmp_path), "the upload to begin")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert names(tmp_path) == set()
    assert store.uploading_bytes.total() == 0


async def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path: Path, disk: Disk) -> None:
    store = store_in(tmp_path, disk)
    async with store.upload("p") as upload:
        await upload.write(b"whole")
        file = await upload.finish("a", "batch")
    folder = tmp_path / "files"
    (folder / ".upload-1").write_bytes(b"half")
    (folder / "file-1.data").write_bytes(b"without a description")
    (folder / "file-2.json").write_text("{}")
    assert store_in(tmp_path, disk).all_of("p") == [file]
    assert names(tmp_path) == {f"{file.id}.data", f"{file.id}.json", "file-2.json"}


async def test_a_file_all_files_and_those_of_a_project_have_their_limits(tmp_path: Path, disk: Disk) -> None:
    store = store_in(tmp_path, disk, max_bytes=2_000, total_bytes=3_000)
    async with store.upload("p") as first, store.upload("q") as second, store.upload("r") as third:
        await first.write(b"x" * 1_400)
        await second.write(b"x" * 1_500)
        with pytest.raises(FilesFullError, match="All files"):
            await third.write(b"x" * 101)
        with pytest.raises(PayloadTooLargeError, match=r"files\.max_bytes"):
            await first.write(b"x" * 601)
    async with store.upload("p") as upload:
        await upload.write(b"x" * 1_500)
        file = await upload.finish("a", "batch")
    with pytest.raises(FilesFullError, match="one project"):
        async with store.upload("p") as upload:
            await upload.write(b"x")
    assert len(names(tmp_path)) == 2
    await store.delete(file.id, "p")
    async with store.upload("p") as upload:
        await upload.write(b"x" * 1_500)


async def test_row_33_a_full_disk_refuses_an_upload_and_keeps_nothing_of_it(tmp_path: Path, disk: Disk) -> None:
    store = store_in(tmp_path, disk)
    with full_disk(WRITE_BYTES // 2), pytest.raises(DiskFullError) as full:
        async with store.upload("p") as upload:
            await upload.write(b"x" * WRITE_BYTES)
    assert full.value.status == 507
    assert names(tmp_path) == set()
    async with store.upload("p") as upload:
        await upload.write(b"x" * WRITE_BYTES)
        await upload.finish("a", "batch")
    assert len(store.all_of("p")) == 1


async def test_a_result_becomes_a_file_once(tmp_path: Path, disk: Disk) -> None:
    store = store_in(tmp_path, disk)
    source = tmp_path / "output.jsonl"
    source.write_bytes(b"{}\n")
    for _ in range(2):
        await store.adopt(source, "file-1-output", "p", "results")
    again = store_in(tmp_path, disk)
    await again.adopt(source, "file-1-output", "p", "results")
    assert [(file.id, file.purpose, file.bytes) for file in again.all_of("p")] == [("file-1-output", "batch_output", 3)]


# Batches


def result(number: int) -> bytes:
    """A line of a result file."""
    return json.dumps({"id": result_id("batch_1", number), "x": "y" * (number % 7)}).encode() + b"\n"


def new_folder(path: Path) -> BatchFolder:
    """An empty folder of a batch."""
    path.mkdir()
    return BatchFolder(path)


def opened(folder: BatchFolder) -> ResultFiles:
    """Its results."""
    results = ResultFiles(folder)
    results.open()
    return results


@given(st.lists(st.booleans(), min_size=1, max_size=12), st.integers(0, 400), st.binary(max_size=40))
def test_however_a_file_was_cut_its_whole_lines_stay_and_the_others_are_asked_again(
    tmp_path_factory: pytest.TempPathFactory, kinds: list[bool], cut: int, rubbish: bytes
) -> None:
    folder = new_folder(tmp_path_factory.mktemp("batch") / "batch_1")
    results = opened(folder)
    for number, is_answer in enumerate(kinds, 1):
        results.append(number, result(number), is_answer=is_answer)
    results.close()
    whole = folder.output.read_bytes()
    kept = whole[:cut] + (rubbish if cut < len(whole) else b"")
    folder.output.write_bytes(kept)
    results = opened(folder)
    failed = {number for number, is_answer in enumerate(kinds, 1) if not is_answer}
    assert results.failed == len(failed)
    assert folder.output.read_bytes() == whole[: folder.output.stat().st_size]
    missing = set(range(1, len(kinds) + 1)) - results.done
    for number in sorted(missing):
        results.append(number, result(number), is_answer=True)
    results.close()
    lines = [*folder.output.read_bytes().splitlines(), *folder.errors.read_bytes().splitlines()]
    assert sorted(json.loads(line)["id"] for line in lines) == sorted(
        result_id("batch_1", number) for number in range(1, len(kinds) + 1)
    )


def test_row_33_a_result_that_the_disk_refused_is_written_whole_later(tmp_path: Path) -> None:
    folder = new_folder(tmp_path / "batch_1")
    results = opened(folder)
    results.append(1, result(1), is_answer=True)
    size = folder.output.stat().st_size
    with full_disk(size + 5), pytest.raises(OSError, match="File too large"):
        results.append(2, result(2), is_answer=True)
    assert results.done == {1}
    results.append(2, result(2), is_answer=True)
    results.sync()
    results.close()
    assert folder.output.read_bytes() == result(1) + result(2)


async def test_what_the_disk_refuses_is_tried_until_it_takes_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock, tries = FakeClock(), 0
    disk = Disk(clock)

    def write() -> int:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise OSError(28, "No space left on device")
        return tries

    writing = asyncio.create_task(disk.until_done(write, "A result"))
    while not writing.done():
        clock.advance(RETRY_SECONDS)
        await asyncio.sleep(0)
    assert await writing == 3
    (record,) = caplog.records
    assert record.getMessage().startswith("A result could not be written (The disk of the data folder is full.")
    await disk.close()


def test_a_folder_is_whole_or_not_there(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"{}\n")
    folder = BatchFolder(tmp_path / "batch_1")
    folder.create(BATCH, source)
    source.unlink()
    assert folder.load() == BATCH
    assert folder.input.read_bytes() == b"{}\n"
    with pytest.raises(FileNotFoundError):
        BatchFolder(tmp_path / "batch_2").create(BATCH, source)
    assert [path.name for path in tmp_path.iterdir()] == ["batch_1"]


def test_a_file_system_without_links_gets_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "source").write_bytes(b"{}\n")
    folder = BatchFolder(tmp_path / "batch_1")
    folder.create(BATCH, tmp_path / "source")
    assert folder.input.read_bytes() == b"{}\n"
    with pytest.raises(FileNotFoundError):
        BatchFolder(tmp_path / "batch_2").create(BATCH, tmp_path / "nothing")


def test_lines_are_read_in_slices_with_their_numbers_and_without_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "input"
    path.write_bytes(b"\xef\xbb\xbfone\n\n  \r\ntwo\r\nthree")
    reader = LineReader(path)
    assert reader.take(1, 100) == [(1, b"one")]
    assert reader.take(9, 3) == [(4, b"two")]
    assert reader.take(9, 100) == [(5, b"three")]
    assert reader.take(9, 100) == []
    reader.close()


def test_a_line_without_end_is_read_no_further_than_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "input"
    with path.open("wb") as file:
        file.truncate(3 * LINE_BYTES_MAX)
    reader = LineReader(path)
    ((_, raw),) = reader.take(1, 1)
    assert len(raw) == LINE_BYTES_MAX + 2
    reader.close()
