"""Uploads: whole or not there, and nothing but a plain form with one file."""

from __future__ import annotations

import asyncio
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.nursery import until
from tests.fixtures.webhouse import WebHouse

HEADERS = {"Authorization": "Bearer any", "Content-Type": "multipart/form-data; boundary=B"}
PURPOSE = '--B\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
FILE = '--B\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\nwords\r\n'
END = "--B--\r\n"
PATHS = ("../../run_id", "..%2f..%2frun_id", "%2e%2e%2frun_id", "file-1", "file-1.json", "a%00b")


def files_in(house: WebHouse) -> list[str]:
    """What lies in the folder of the files."""
    return sorted(path.name for path in (house.data_folder / "files").iterdir())


async def send(house: WebHouse, body: str | bytes, **headers: str) -> tuple[int, dict[str, Any]]:
    """Upload a body as it is."""
    async with house.http.post("/v1/files", data=body, headers={**HEADERS, **headers}) as answer:
        told = await answer.json()
        return answer.status, told.get("error", told)


@pytest.mark.parametrize("body", [PURPOSE + FILE + END, FILE + PURPOSE + END], ids=["purpose first", "file first"])
async def test_a_form_is_a_file(web_house: WebHouse, body: str) -> None:
    await web_house.serve()
    status, told = await send(web_house, body)
    assert (status, told["filename"], told["bytes"]) == (200, "a.jsonl", 5)
    async with web_house.http.get(f"/v1/files/{told['id']}/content") as answer:
        assert await answer.text() == "words"
        assert answer.content_type == "application/octet-stream"
        assert answer.headers["Content-Disposition"].startswith("attachment")
    async with web_house.http.get(f"/v1/files/{told['id']}/content", headers={"Range": "bytes=1-2"}) as answer:
        assert (answer.status, await answer.text()) == (206, "or")
    async with web_house.http.delete(f"/v1/files/{told['id']}") as answer:
        assert await answer.json() == {"id": told["id"], "object": "file", "deleted": True}
    assert files_in(web_house) == []


async def test_row_58_an_upload_that_is_cut_leaves_nothing_to_see(web_house: WebHouse) -> None:
    await web_house.serve()
    _, writer = await asyncio.open_connection("127.0.0.1", web_house.web.port)
    head = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
    start = f"POST /v1/files HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9000000\r\n{head}\r\n{PURPOSE}"
    part = '--B\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    writer.write((start + part + "x" * 3_000_000).encode())
    await until(lambda: files_in(web_house), "the upload to begin")
    writer.transport.abort()
    await until(lambda: not files_in(web_house), "nothing to be left of it")
    assert (await web_house.json("/v1/files"))["data"] == []
    assert web_house.supervisor.batches.files.uploading_bytes.total() == 0


REFUSED = (
    ("", 400, "body"),
    ("words", 400, "body"),
    (END, 400, "file"),
    (PURPOSE + END, 400, "file"),
    (FILE + END, 400, "purpose"),
    (FILE + PURPOSE.replace("batch", "fine-tune") + END, 400, "purpose"),
    (PURPOSE + FILE, 400, "body"),
    (PURPOSE + FILE[:-2], 400, "body"),
    (PURPOSE + FILE + FILE + END, 400, "file"),
    (PURPOSE + FILE + PURPOSE.replace("purpose", "expires_after[seconds]") + END, 400, "expires_after[seconds]"),
    (PURPOSE * 9 + FILE + END, 400, "body"),
    (PURPOSE.replace("batch", "b" * 2_000) + FILE + END, 400, "body"),
    (PURPOSE + FILE.replace("\r\n\r\n", "\r\nContent-Encoding: gzip\r\n\r\n") + END, 400, "body"),
    (PURPOSE + FILE.replace("\r\n\r\n", "\r\nContent-Transfer-Encoding: base64\r\n\r\n") + END, 400, "body"),
    (
        PURPOSE + FILE.replace("\r\n\r\n", "\r\nContent-Type: multipart/mixed; boundary=C\r\n\r\n") + END,
        400,
        "body",
    ),
    (PURPOSE + FILE.replace("\r\n\r\n", f"\r\nX: {'x' * 9_000}\r\n\r\n") + END, 400, "body"),
    (PURPOSE + FILE.replace("\r\n\r\n", "\r\nX: x" * 200 + "\r\n\r\n") + END, 400, "body"),
    (PURPOSE + FILE.replace("words", "w" * 2_000) + END, 413, "file"),
)


async def test_everything_else_is_refused(web_house: WebHouse) -> None:
    await web_house.serve()
    files = web_house.supervisor.batches.files
    files.settings = files.settings.model_copy(update={"max_bytes": 1_024})
    for body, status, param in REFUSED:
        told = await send(web_house, body)
        assert (told[0], told[1]["param"]) == (status, param), (body[:200], told)
    assert files_in(web_house) == []


async def test_a_form_of_another_site_is_refused(web_house: WebHouse) -> None:
    await web_house.serve()
    form = {"Content-Type": HEADERS["Content-Type"]}
    async with web_house.http.post("/v1/files", data=PURPOSE + FILE + END, headers=form) as answer:
        assert answer.status == 400
        assert (await answer.json())["error"]["code"] == "upload_header_missing"
    status, told = await send(web_house, PURPOSE + FILE + END, Origin="http://evil.example")
    assert (status, told["code"]) == (403, "foreign_origin")
    assert files_in(web_house) == []
    own = {**form, "X-Requested-With": "a program", "Origin": web_house.url}
    async with web_house.http.post("/v1/files", data=PURPOSE + FILE + END, headers=own) as answer:
        assert answer.status == 200


async def test_an_upload_of_nothing_is_refused(web_house: WebHouse) -> None:
    await web_house.serve()
    async with web_house.http.post("/v1/files", headers={"Authorization": "Bearer any"}) as answer:
        assert answer.status == 400
        assert (await answer.json())["error"]["param"] == "body"


async def test_a_body_that_does_not_come_is_not_waited_for(web_house: WebHouse) -> None:
    await web_house.serve(server={"body_deadline_seconds": 0.2})
    reader, writer = await asyncio.open_connection("127.0.0.1", web_house.web.port)
    head = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
    writer.write(f"POST /v1/files HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 900\r\n{head}\r\n{PURPOSE}".encode())
    assert b" 408 " in await reader.readline()
    writer.close()


async def test_no_name_leads_out_of_the_folder(web_house: WebHouse) -> None:
    await web_house.serve()
    for path, tail in product(PATHS, ("", "/content")):
        async with web_house.http.get(f"/v1/files/{path}{tail}") as answer:
            assert answer.status == (400 if "%00" in path else 404)
    for name in ("../../../etc/passwd", "/etc/passwd", "a\\..\\b"):
        body = PURPOSE + FILE.replace("a.jsonl", name) + END
        status, told = await send(web_house, body)
        assert status == 200
        assert "/" not in told["filename"]
    assert {Path(name).suffix for name in files_in(web_house)} == {".data", ".json"}


BAD_LISTS = (
    ("/v1/files?limit=0", "limit"),
    ("/v1/files?order=up", "order"),
    ("/v1/files?after=nothing", "after"),
    ("/v1/batches?limit=101", "limit"),
    ("/v1/batches?after=nothing", "after"),
)


async def test_bad_parameters_of_lists_are_named(web_house: WebHouse) -> None:
    await web_house.serve()
    for path, param in BAD_LISTS:
        async with web_house.http.get(path) as answer:
            assert answer.status == 400
            assert (await answer.json())["error"]["param"] == param
