"""Who pays, through the front door: keys, scopes, limits, budgets, and one record for each request, whatever became of it."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from supervisor.errors import UnauthorizedError
from supervisor.gateway.accounting.keys import Keyring
from supervisor.gateway.batch.objects import Order
from supervisor.gateway.calls import CHAT
from supervisor.storage.accounts import Period
from tests.fixtures.door import HELLO, STREAM, Cut, Door
from tests.fixtures.house import misbehaving
from tests.fixtures.nursery import GENEROUS_SECONDS, until
from web.fields import iso

pytestmark = pytest.mark.faults
ADMIN = "admin-key-of-the-server"
PRICES = {"one": {"input": "1000", "output": "2000"}}
"""A prompt token costs 1,000 micro-units, a completion token 2,000."""
TRIES = 500


@pytest_asyncio.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    """Not open yet."""
    door = Door(tmp_path)
    yield door
    await door.close()


async def open_with(door: Door, knobs: Mapping[str, Any] | None = None, **sections: Any) -> None:
    """A server with a key of its own, and one engine."""
    instances = {"one": misbehaving(door.house.model, knobs=dict(knobs or {}), supervision={"retry_base_seconds": 30})}
    await door.open(
        instances,
        api_key=ADMIN,
        gateway={"queue_seconds": 30.0},
        sections={"storage": {"write_seconds": 0.01}, "accounting": {"prices": PRICES}, **sections},
    )
    door.session.headers["Authorization"] = f"Bearer {ADMIN}"


async def call(door: Door, method: str, path: str, body: object = None, *, key: str | None = None) -> tuple[int, Any]:
    """One request to the administration; its status and JSON."""
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    async with door.session.request(method, f"{door.url}{path}", json=body, headers=headers) as response:
        return response.status, await response.json()


async def made(door: Door, **fields: Any) -> dict[str, Any]:
    """A new key."""
    status, key = await call(door, "POST", "/admin/keys", fields)
    assert status == 201, key
    return dict(key)


async def ask(door: Door, key: str, body: object = HELLO) -> tuple[int, Any, Mapping[str, str]]:
    """A chat with that key."""
    headers = {"Authorization": f"Bearer {key}"}
    async with door.session.post(f"{door.url}/v1/chat/completions", json=body, headers=headers) as response:
        return response.status, await response.json(), response.headers


async def records(door: Door) -> list[dict[str, Any]]:
    """All records, newest first."""
    _, told = await call(door, "GET", "/admin/requests?limit=500")
    return list(told["requests"])


async def test_a_key_opens_what_its_scopes_say(door: Door) -> None:
    await open_with(door)
    keys = {scope: (await made(door, scopes=[scope], label=scope))["key"] for scope in ("inference", "read", "admin")}
    allowed = {
        ("POST", "/v1/chat/completions"): {"inference", "admin"},
        ("GET", "/v1/models"): {"inference", "read", "admin"},
        ("GET", "/admin/instances"): {"read", "admin"},
        ("GET", "/admin/keys"): {"read", "admin"},
        ("POST", "/admin/keys"): {"admin"},
    }
    for (method, path), scopes in allowed.items():
        for scope, key in keys.items():
            status, answer = await call(door, method, path, HELLO if path.startswith("/v1/chat") else {}, key=key)
            if method == "GET" and status == 415:
                pytest.fail("a GET has no body")
            assert (status < 300) is (scope in scopes), (method, path, scope, answer)
            if status >= 300:
                assert (status, answer["error"]["code"]) == (403, "missing_scope")


async def test_a_key_is_shown_once_and_ends_when_it_is_revoked(door: Door) -> None:
    await open_with(door)
    made_key = await made(door, label="laptop")
    text = made_key["key"]
    assert (await ask(door, text))[0] == 200
    _, listed = await call(door, "GET", "/admin/keys")
    assert text not in str(listed)
    assert text.rpartition("-")[2] not in str(listed)
    assert (await call(door, "DELETE", f"/admin/keys/{made_key['id']}"))[0] == 200
    status, answer, _ = await ask(door, text)
    assert (status, answer["error"]["code"]) == (401, "invalid_api_key")
    assert "Invalid or revoked API key" in answer["error"]["message"]


BAD_FIELDS: tuple[tuple[str, str, object, str | None], ...] = (
    ("/admin/keys", "POST", {"scopes": ["all"]}, "scopes"),
    ("/admin/keys", "POST", {"scopes": []}, "scopes"),
    ("/admin/keys", "POST", {"project": "nobody"}, "project"),
    ("/admin/keys", "POST", {"expires_at": "tomorrow"}, "expires_at"),
    ("/admin/keys", "POST", {"expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
    ("/admin/keys", "POST", {"limits": {"requests": 1}}, "limits.requests"),
    ("/admin/keys", "POST", {"limits": {"concurrency": 0}}, "limits.concurrency"),
    ("/admin/keys", "POST", {"label": "\ud800"}, "label"),
    ("/admin/keys", "POST", {"label": "a\x00b"}, "label"),
    ("/admin/keys", "POST", {"project": "\udfff"}, "project"),
    ("/admin/keys/nobody", "PATCH", {}, "id"),
    ("/admin/keys/nobody", "PATCH", {"scopes": ["admin"]}, "scopes"),
    ("/admin/keys/nobody", "PATCH", {"label": 7}, "label"),
    ("/admin/keys/nobody", "PATCH", {"expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
    ("/admin/keys/nobody", "PATCH", {"limits": {"requests": 1}}, "limits.requests"),
    ("/admin/keys/nobody", "PATCH", {"limits": {"concurrency": 0}}, "limits.concurrency"),
    ("/admin/keys/nobody", "PATCH", {"limits": [1]}, "limits"),
    ("/admin/projects/nobody", "PATCH", {"limits": {}}, "project"),
    ("/admin/projects/default", "PATCH", {"name": "other"}, "name"),
    ("/admin/projects/default", "DELETE", None, "name"),
    ("/admin/projects/nobody", "DELETE", None, "project"),
    ("/admin/projects", "POST", {"name": "No Name"}, "name"),
    ("/admin/projects", "POST", {"name": "default"}, "name"),
    ("/admin/budgets", "PUT", {"project": "default", "period": "year", "unit": "tokens", "amount": 1}, "period"),
    ("/admin/budgets", "PUT", {"project": "default", "period": "day", "unit": "tokens", "amount": -1}, "amount"),
    ("/admin/budgets", "PUT", {"project": "default", "period": "day", "unit": "tokens", "amount": 1.5}, "amount"),
    (
        "/admin/budgets",
        "PUT",
        {"project": "default", "period": "day", "unit": "tokens", "amount": 1, "key_id": "\ud800"},
        "key_id",
    ),
    ("/v1/requests/%00", "GET", None, None),
    ("/v1/organization/costs?start_time=0&project_ids=%00", "GET", None, None),
    ("/v1/usage?period=year", "GET", None, "period"),
    ("/v1/organization/costs", "GET", None, "start_time"),
    ("/v1/organization/costs?start_time=0&bucket_width=1s", "GET", None, "bucket_width"),
    ("/v1/organization/costs?start_time=0&group_by=model", "GET", None, "group_by"),
    ("/v1/organization/usage/completions?start_time=0&batch=maybe", "GET", None, "batch"),
    ("/v1/organization/usage/completions?start_time=0&user_ids=me", "GET", None, "user_ids"),
    ("/v1/usage?project_id=nobody", "GET", None, "project_id"),
    ("/admin/requests?after=x", "GET", None, "after"),
)


async def test_bad_fields_are_named(door: Door) -> None:
    await open_with(door)
    for path, method, body, param in BAD_FIELDS:
        status, answer = await call(door, method, path, body)
        assert status in {400, 404, 409}
        assert answer["error"]["param"] == param, path


async def test_every_request_leaves_one_record_that_says_how_it_ended(door: Door) -> None:
    await open_with(door)
    key = (await made(door))["key"]
    _, whole, headers = await ask(door, key)
    receipt_id = headers["x-llamavisor-request-id"]
    await door.stream({**STREAM, "stream_options": {"include_usage": True}})
    status, _, _ = await ask(door, key, {"messages": []})
    assert status == 400
    status, receipt = await call(door, "GET", f"/v1/requests/{receipt_id}", key=key)
    assert status == 200
    usage = receipt["usage"]
    assert usage["source"] == "engine"
    assert usage["completion_tokens"] == whole["usage"]["completion_tokens"]
    assert receipt["cost"]["micros"] == usage["prompt_tokens"] * 1_000 + usage["completion_tokens"] * 2_000
    assert receipt["timings"]["total_ms"] >= receipt["timings"]["first_byte_ms"] > 0
    found = await records(door)
    assert [(one["outcome"], one["stream"]) for one in found] == [("ok", True), ("ok", False)]
    assert {one["cost"]["micros"] for one in found} == {receipt["cost"]["micros"]}


async def test_another_project_does_not_see_the_receipt(door: Door) -> None:
    await open_with(door)
    await call(door, "POST", "/admin/projects", {"name": "other"})
    mine, theirs = (await made(door))["key"], (await made(door, project="other"))["key"]
    _, _, headers = await ask(door, mine)
    path = f"/v1/requests/{headers['x-llamavisor-request-id']}"
    assert (await call(door, "GET", path, key=mine))[0] == 200
    assert (await call(door, "GET", path, key=theirs))[0] == 404
    await call(door, "POST", "/admin/projects", {"name": "third"})
    assert (await call(door, "GET", "/v1/usage?project_id=third", key=theirs))[0] == 403
    _, told = await call(door, "GET", "/v1/usage?project_id=default", key=theirs)
    assert (told["project_id"], told["total_tokens"]) == ("other", 0)


async def test_another_projects_request_of_the_same_name_does_not_hide_ones_own(door: Door) -> None:
    await open_with(door)
    await call(door, "POST", "/admin/projects", {"name": "other"})
    keys = [(await made(door, project=project))["key"] for project in ("default", "other")]
    for key in keys:
        headers = {"Authorization": f"Bearer {key}", "X-Request-Id": "order-17"}
        async with door.session.post(f"{door.url}{CHAT}", json=HELLO, headers=headers) as response:
            assert response.status == 200
    told = [await call(door, "GET", "/v1/requests/order-17", key=key) for key in (*keys, ADMIN)]
    assert [(status, receipt["project"]) for status, receipt in told] == [
        (200, "default"),
        (200, "other"),
        (200, "other"),
    ]


PAYERS: tuple[tuple[str, str | None, str], ...] = (
    ("shop", None, "shop"),
    ("shop", "default", "shop"),
    ("shop", "shop", "shop"),
    ("shop", "lab", "forbidden"),
    ("chief", "lab", "lab"),
    ("chief", "nobody", "project_not_found"),
    ("server", None, "default"),
    ("server", "lab", "lab"),
    ("server", "nobody", "project_not_found"),
    ("server", "\ud800", "project_not_found"),
    ("server", "", "invalid_request"),
)
"""A key, the `project_id` of its request, and the project that pays or the code of the refusal."""


async def test_each_surface_has_the_same_project_pay(door: Door) -> None:
    await open_with(door)
    for name in ("shop", "lab"):
        await call(door, "POST", "/admin/projects", {"name": name})
    keys = {
        "shop": (await made(door, project="shop"))["key"],
        "chief": (await made(door, project="shop", scopes=["admin"]))["key"],
        "server": ADMIN,
    }
    for surface in (flat_chat, prompt_list, socket_chat):
        for key, named, outcome in PAYERS:
            before = len(await records(door))
            refused = await surface(door, keys[key], {} if named is None else {"project_id": named})
            paid = [record["project"] for record in (await records(door))[: len(await records(door)) - before]]
            assert refused or paid == [outcome], (surface, key, named)
            assert refused in (None, outcome), (surface, key, named)
            assert not (refused and paid)


async def flat_chat(door: Door, key: str, named: dict[str, str]) -> str | None:
    """Ask so; the code of the refusal."""
    status, answer, _ = await ask(door, key, {**HELLO, **named, "timeout": 30})
    if status == 200:
        assert named.get("project_id") in (None, "default", answer["project_id"])
        return None
    assert answer["error"]["param"] == "project_id"
    return str(answer["error"]["code"])


async def prompt_list(door: Door, key: str, named: dict[str, str]) -> str | None:
    """As `flat_chat`."""
    status, answer = await call(door, "POST", "/v1/batch", {"prompts": [{"prompt": "Hello"}], **named}, key=key)
    return None if status == 200 else str(answer["error"]["code"])


async def socket_chat(door: Door, key: str, named: dict[str, str]) -> str | None:
    """As `flat_chat`."""
    async with door.session.ws_connect(f"{door.url}/v1/stream", headers={"Authorization": f"Bearer {key}"}) as socket:
        await socket.send_json({"type": "chat", **HELLO, **named})
        while (told := await socket.receive_json(timeout=GENEROUS_SECONDS))["type"] == "token":
            pass
    return None if told["type"] == "done" else str(told["code"])


@pytest.mark.parametrize(("scope", "paid"), [("inference", ["shop"] * 2), ("admin", ["lab", *["shop"] * 2])])
async def test_a_line_of_a_batch_is_paid_by_whom_it_may_name(door: Door, scope: str, paid: list[str]) -> None:
    await open_with(door)
    for name in ("shop", "lab"):
        await call(door, "POST", "/admin/projects", {"name": name})
    caller = door.house.supervisor.office.bookkeeper.identify((await made(door, project="shop", scopes=[scope]))["key"])
    batches, line = door.house.supervisor.batches, {"method": "POST", "url": CHAT}
    async with batches.files.upload("shop") as upload:
        for named in ("shop", "default", "lab"):
            body = {**HELLO, "project_id": named}
            await upload.write(json.dumps({**line, "custom_id": named, "body": body}).encode() + b"\n")
        file = await upload.finish("a.jsonl", "batch")
    batch = await batches.create(Order(CHAT, file.id), caller)
    await until(lambda: batches.get(batch.id, "shop").is_over, "the end of the batch")
    assert sorted(record["project"] for record in await records(door)) == paid
    assert "project_id" not in (await door.at_engine("one", "/_control"))["last_request"]["body"]
    done = batches.get(batch.id, "shop")
    if "lab" in paid:
        return
    (raw,) = batches.files.path_of(batches.files.get(done.error_file_id or "", "shop")).read_bytes().splitlines()
    refused = json.loads(raw)
    assert (refused["custom_id"], refused["response"]["status_code"]) == ("lab", 403)
    assert refused["response"]["body"]["error"]["param"] == "project_id"


async def test_a_revoked_key_asks_for_no_more_lines_and_chats(door: Door) -> None:
    await open_with(door, {"prefill_seconds": 0.3, "prefill_burns": False, "parallel": 4})
    key = await made(door)
    caller = door.house.supervisor.office.bookkeeper.identify(key["key"])
    batches, line = door.house.supervisor.batches, {"method": "POST", "url": CHAT, "body": HELLO}
    async with batches.files.upload(caller.project) as upload:
        for number in range(12):
            await upload.write(json.dumps({**line, "custom_id": str(number)}).encode() + b"\n")
        file = await upload.finish("a.jsonl", "batch")
    headers = {"Authorization": f"Bearer {key['key']}"}
    async with door.session.ws_connect(f"{door.url}/v1/stream", headers=headers) as socket:
        batch = await batches.create(Order(CHAT, file.id), caller)
        await until(lambda: door.house.supervisor.gateway.active > 0, "the first lines")
        assert (await call(door, "DELETE", f"/admin/keys/{key['id']}"))[0] == 200
        await socket.send_json({"type": "chat", **HELLO})
        told = await socket.receive_json(timeout=GENEROUS_SECONDS)
        assert (told["type"], told["code"]) == ("error", "invalid_api_key")
    await until(lambda: batches.get(batch.id, caller.project).is_over, "the end of the batch")
    done = batches.get(batch.id, caller.project)
    assert (done.status, done.completed + done.failed) == ("completed", 12)
    assert done.completed > 0
    failures = batches.files.path_of(batches.files.get(done.error_file_id or "", caller.project)).read_bytes()
    responses = [json.loads(raw)["response"] for raw in failures.splitlines()]
    assert {(one["status_code"], one["body"]["error"]["code"]) for one in responses} == {(401, "invalid_api_key")}


async def test_a_stream_that_is_cut_is_billed_for_what_came(door: Door) -> None:
    await open_with(door, {"stream_fault": "no_done", "fault_after": 3})
    with pytest.raises(Cut):
        await door.stream(STREAM)
    (record,) = await records(door)
    assert (record["outcome"], record["error_code"]) == ("cut", "incomplete_answer")
    assert record["usage"]["completion_tokens"] > 0
    assert record["cost"]["micros"] > 0


async def test_a_client_that_leaves_is_billed_for_what_came(door: Door) -> None:
    await open_with(door, {"token_interval_seconds": 0.02, "token_count": 100_000})
    async with door.post(STREAM) as response:
        await response.content.readany()
    for _ in range(TRIES):
        (record,) = await records(door)
        if record["outcome"] is not None:
            break
        await asyncio.sleep(0.02)
    assert record["outcome"] == "client_gone"
    assert record["usage"]["source"] == "counted"
    assert record["usage"]["completion_tokens"] >= 1


async def test_limits_refuse_and_say_when_to_come_back(door: Door) -> None:
    await open_with(door)
    key = (await made(door, limits={"requests_per_minute": 2}))["key"]
    answers = [await ask(door, key) for _ in range(3)]
    assert [status for status, _, _ in answers] == [200, 200, 429]
    assert answers[0][2]["x-ratelimit-limit-requests"] == "2"
    assert answers[0][2]["x-ratelimit-remaining-requests"] == "1"
    assert "Rate limit exceeded" in answers[2][1]["error"]["message"]
    assert int(answers[2][2]["Retry-After"]) >= 1
    assert answers[2][2]["x-ratelimit-remaining-requests"] == "0"
    assert len(await records(door)) == 2


async def test_a_key_is_changed_in_what_is_named_and_at_once(door: Door) -> None:
    await open_with(door, {"token_interval_seconds": 0.02, "token_count": 100_000, "parallel": 4})
    key = await made(door, label="laptop", limits={"requests_per_minute": 4, "concurrency": 2})
    path, headers = f"/admin/keys/{key['id']}", {"Authorization": f"Bearer {key['key']}"}
    async with door.session.post(f"{door.url}{CHAT}", json=STREAM, headers=headers) as running:
        await running.content.readany()
        status, changed = await call(door, "PATCH", path, {"limits": {"concurrency": 1}})
        assert (status, changed["limits"]) == (
            200,
            {"requests_per_minute": 4, "tokens_per_minute": None, "concurrency": 1},
        )
        status, answer, told = await ask(door, key["key"])
        assert (status, answer["error"]["details"]) == (429, {"limit": "concurrency"})
        assert told["x-ratelimit-remaining-requests"] == "3"
        assert (await call(door, "PATCH", path, {"limits": {"concurrency": None}}))[1]["limits"]["concurrency"] is None
        async with door.session.post(f"{door.url}{CHAT}", json=STREAM, headers=headers) as another:
            assert another.status == 200
    _, changed = await call(door, "PATCH", path, {"label": "desk", "limits": {"requests_per_minute": 1}})
    assert (changed["label"], changed["expires_at"], changed["scopes"]) == ("desk", None, ["inference"])
    assert (await ask(door, key["key"]))[0] == 429
    _, listed = await call(door, "GET", "/admin/keys")
    assert listed["keys"] == [changed]


async def test_the_end_of_a_key_is_moved(door: Door) -> None:
    await open_with(door)
    soon = iso(int((time.time() + 1) * 1_000))
    key = await made(door, expires_at=soon)
    path = f"/admin/keys/{key['id']}"
    keyring = door.house.supervisor.office.bookkeeper.keyring
    await until(lambda: not opens(keyring, key["key"]), "the key to expire")
    assert (await ask(door, key["key"]))[0] == 401
    status, answer = await call(door, "PATCH", path, {"expires_at": soon})
    assert (status, answer["error"]["param"]) == (400, "expires_at")
    assert (await call(door, "PATCH", path, {"label": "still over"}))[0] == 200
    assert (await ask(door, key["key"]))[0] == 401
    assert (await call(door, "PATCH", path, {"expires_at": None}))[1]["expires_at"] is None
    assert (await ask(door, key["key"]))[0] == 200


def opens(keyring: Keyring, key: str) -> bool:
    """Whether it is a valid key."""
    try:
        keyring.identify(key)
    except UnauthorizedError:
        return False
    return True


async def test_a_revoked_key_is_only_given_another_label(door: Door) -> None:
    await open_with(door)
    key = await made(door)
    path = f"/admin/keys/{key['id']}"
    await call(door, "DELETE", path)
    status, answer = await call(door, "PATCH", path, {"limits": {"concurrency": 9}, "label": "x"})
    assert (status, answer["error"]["code"]) == (409, "key_revoked")
    status, changed = await call(door, "PATCH", path, {"label": "the old one"})
    assert (status, changed["label"]) == (200, "the old one")
    assert (await ask(door, key["key"]))[0] == 401


async def test_a_projects_limits_are_merged_and_hold_at_once(door: Door) -> None:
    await open_with(door)
    await call(door, "POST", "/admin/projects", {"name": "shop", "limits": {"concurrency": 4, "tokens_per_minute": 9}})
    change = {"limits": {"requests_per_minute": 1, "tokens_per_minute": None}}
    status, changed = await call(door, "PATCH", "/admin/projects/shop", change)
    assert (status, changed["limits"]) == (
        200,
        {"requests_per_minute": 1, "tokens_per_minute": None, "concurrency": 4},
    )
    keys = [(await made(door, project="shop"))["key"] for _ in range(2)]
    assert [(await ask(door, key))[0] for key in keys] == [200, 429]
    _, changed = await call(door, "PATCH", "/admin/projects/shop", {"limits": None})
    assert set(changed["limits"].values()) == {None}
    assert (await ask(door, keys[1]))[0] == 200


async def test_a_removed_project_breaks_nothing_and_its_books_are_found(door: Door) -> None:
    await open_with(door, {"token_interval_seconds": 0.02, "token_count": 100_000})
    await call(door, "POST", "/admin/projects", {"name": "shop"})
    await call(door, "PUT", "/admin/budgets", {"project": "shop", "period": "day", "unit": "tokens", "amount": 10**6})
    key = await made(door, project="shop")
    headers = {"Authorization": f"Bearer {key['key']}"}
    status, answer = await call(door, "DELETE", "/admin/projects/shop")
    assert (status, answer["error"]["code"]) == (409, "project_in_use")
    async with door.session.post(f"{door.url}{CHAT}", json=STREAM, headers=headers) as running:
        await running.content.readany()
        request_id = running.headers["x-llamavisor-request-id"]
        await call(door, "DELETE", f"/admin/keys/{key['id']}")
        assert await call(door, "DELETE", "/admin/projects/shop") == (200, {"name": "shop", "removed": True})
        # Its stream goes on, and is booked.
        await running.content.readany()
    _, told = await call(door, "GET", "/admin/projects")
    assert [one["name"] for one in told["projects"]] == ["default"]
    assert await call(door, "GET", "/admin/budgets") == (200, {"budgets": []})
    assert (await call(door, "DELETE", "/admin/projects/shop"))[0] == 404
    status, answer = await call(door, "POST", CHAT, {**HELLO, "project_id": "shop"})
    assert (status, answer["error"]["code"]) == (404, "project_not_found")
    ledger = door.house.supervisor.office.bookkeeper.ledger
    now_ms = door.house.supervisor.office.bookkeeper.now_ms()
    await until(lambda: ledger.used("shop", now_ms)[Period.DAY][1] > 0, "the stream to be booked")
    _, receipt = await call(door, "GET", f"/v1/requests/{request_id}")
    assert (receipt["project"], receipt["outcome"], receipt["key_id"]) == ("shop", "client_gone", key["id"])
    _, used = await call(door, "GET", "/v1/usage?project_id=shop&period=day")
    assert used["total_tokens"] == receipt["usage"]["total_tokens"] > 0
    assert (await call(door, "POST", "/admin/projects", {"name": "shop"}))[0] == 201


async def test_a_used_up_budget_refuses_and_is_not_to_be_tried_again(door: Door) -> None:
    await open_with(door)
    key = (await made(door))["key"]
    budget = {"project": "default", "period": "day", "unit": "micros", "amount": 0}
    assert (await call(door, "PUT", "/admin/budgets", budget))[0] == 200
    status, answer, headers = await ask(door, key)
    assert (status, answer["error"]["code"]) == (429, "insufficient_quota")
    assert "Budget exceeded" in answer["detail"]
    assert headers["x-should-retry"] == "false"
    async with door.session.get(f"{door.url}/metrics") as response:
        figures = await response.text()
    assert 'llamavisor_project_refusals_total{code="insufficient_quota",project="default"} 1.0' in figures
    await call(door, "DELETE", "/admin/budgets?project=default&period=day&unit=micros")
    assert (await ask(door, key))[0] == 200


async def test_sixty_four_clients_of_one_key_spend_no_more_than_the_budget_and_what_was_held_back(door: Door) -> None:
    await open_with(door, {"parallel": 64, "token_interval_seconds": 0.001})
    key = (await made(door))["key"]
    _, first, _ = await ask(door, key)
    price = first["usage"]["prompt_tokens"] * 1_000 + first["usage"]["completion_tokens"] * 2_000
    amount = 21 * price
    await call(
        door, "PUT", "/admin/budgets", {"project": "default", "period": "day", "unit": "micros", "amount": amount}
    )
    body = {**HELLO, "max_tokens": first["usage"]["completion_tokens"]}
    answers = await asyncio.gather(*(ask(door, key, body) for _ in range(64)))
    served = [answer for answer in answers if answer[0] == 200]
    assert {status for status, _, _ in answers} == {200, 429}
    _, told = await call(door, "GET", "/admin/budgets")
    (standing,) = told["budgets"]
    assert standing["reserved"] == 0
    assert standing["spent"] == price * (1 + len(served))
    found = await records(door)
    assert len(found) == 1 + len(served)
    assert sum(one["cost"]["micros"] for one in found) == standing["spent"]
    assert standing["spent"] <= amount + price


async def test_usage_is_told_in_each_shape(door: Door) -> None:
    await open_with(door)
    key = await made(door)
    for _ in range(3):
        await ask(door, key["key"])
    _, usage = await call(door, "GET", "/v1/usage?period=day", key=key["key"])
    assert (
        usage["total_tokens"] == usage["by_model"]["tiny"]["tokens"]
        if "tiny" in usage["by_model"]
        else usage["total_tokens"] > 0
    )
    now = int(time.time())
    path = f"start_time={now - 3_600}&bucket_width=1h&group_by=project_id,api_key_id,model&limit=24"
    _, buckets = await call(door, "GET", f"/v1/organization/usage/completions?{path}")
    results = [one for bucket in buckets["data"] for one in bucket["results"]]
    assert sum(one["num_model_requests"] for one in results) == 3
    assert {one["api_key_id"] for one in results} == {key["id"]}
    assert sum(one["input_tokens"] + one["output_tokens"] for one in results) == usage["total_tokens"]
    _, costs = await call(door, "GET", f"/v1/organization/costs?start_time={now - 86_400}")
    total = sum(one["amount"]["value"] for bucket in costs["data"] for one in bucket["results"])
    assert total == pytest.approx(usage["total_cost"])
    async with door.session.get(f"{door.url}/admin/usage.csv") as response:
        rows = list(csv.DictReader(io.StringIO(await response.text())))
    assert len(rows) == 3
    assert sum(int(row["cost_micros"]) for row in rows) == usage["total_cost_micros"]
    assert sum(one["cost_micros"] for one in usage["by_model"].values()) == round(usage["total_cost"] * 1_000_000)


async def test_organization_usage_is_chosen_and_divided(door: Door) -> None:
    await open_with(door)
    await call(door, "POST", "/admin/projects", {"name": "other"})
    mine, theirs = await made(door), await made(door, project="other")
    for key, times in ((mine, 2), (theirs, 3)):
        for _ in range(times):
            assert (await ask(door, key["key"]))[0] == 200
        assert (await ask(door, key["key"], {**HELLO, "model": "nobody"}))[0] == 404
    # It leaves a record, without tokens.
    assert (await call(door, "POST", "/v1/tokenize", {"text": "Hello"}, key=mine["key"]))[0] == 501

    async def results(what: str, query: str) -> list[dict[str, Any]]:
        status, told = await call(door, "GET", f"/v1/organization/{what}?start_time={int(time.time()) - 3_600}&{query}")
        assert status == 200, told
        return [one for bucket in told["data"] for one in bucket["results"]]

    async def requests(query: str) -> list[int]:
        return [one["num_model_requests"] for one in await results("usage/completions", query)]

    assert await requests("project_ids=default&project_ids=other") == [5]
    assert await requests("project_ids=other&group_by=project_id") == [3]
    assert await requests(f"api_key_ids={mine['id']}") == [2]
    assert await requests("models=nobody") == []
    assert await requests("batch=true") == []
    assert [one["batch"] for one in await results("usage/completions", "group_by=batch")] == [False]
    costs = await results("costs", "group_by=line_item,api_key_id")
    assert sorted(one["api_key_id"] for one in costs) == sorted([mine["id"], theirs["id"]])
    assert all(one["line_item"] and one["unpriced_requests"] == 0 for one in costs)


async def test_a_table_of_many_records_comes_in_pieces(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("web.routes.usage.CSV_RECORDS", 2)
    await open_with(door)
    key = (await made(door))["key"]
    asked = [(await ask(door, key))[2]["x-llamavisor-request-id"] for _ in range(5)]
    async with door.session.get(f"{door.url}/admin/usage.csv") as response:
        assert [row["id"] for row in csv.DictReader(io.StringIO(await response.text()))] == asked


async def test_keys_and_spending_outlive_a_restart(door: Door) -> None:
    await open_with(door)
    key = (await made(door))["key"]
    await call(
        door, "PUT", "/admin/budgets", {"project": "default", "period": "month", "unit": "tokens", "amount": 10**9}
    )
    await ask(door, key)
    _, before = await call(door, "GET", "/admin/budgets")
    supervisor = door.house.supervisor
    await supervisor.office.close()
    supervisor.office = await type(supervisor.office).open(
        supervisor.settings, supervisor.data_folder, supervisor.clock
    )
    assert supervisor.office.bookkeeper.identify(key).project == "default"
    (standing,) = supervisor.office.bookkeeper.ledger.budget_status("default", supervisor.office.bookkeeper.now_ms())
    assert standing.spent == before["budgets"][0]["spent"] > 0
