"""The pure parts of batch work: lines, retries, states, turns, pages, prompts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.errors import (
    LlamavisorError,
    MalformedRequestError,
    NotAvailableError,
    NotFoundError,
    RateLimitedError,
    StateConflictError,
)
from supervisor.gateway.accounting.callers import Caller
from supervisor.gateway.batch.asking import reply_of
from supervisor.gateway.batch.files import StoredFile, shown_name
from supervisor.gateway.batch.lines import (
    RETRY_MAX_SECONDS,
    BadLineError,
    Reply,
    answered,
    failure,
    number_in,
    read_line,
    result_id,
    unanswered,
    wait_seconds,
)
from supervisor.gateway.batch.objects import WINDOW_SECONDS, Batch, BatchStatus, Fault, Order, read_order
from supervisor.gateway.batch.paging import Page
from supervisor.gateway.batch.prompts import Prompt, Result, read_prompts, summary
from supervisor.gateway.batch.turns import Servers, Turns
from supervisor.gateway.calls import CHAT, EMBEDDINGS
from supervisor.gateway.exchange import Answer
from web.dialects import error_response

GOOD: dict[str, Any] = {"custom_id": "a", "method": "POST", "url": CHAT, "body": {"messages": []}}
ORDER: dict[str, Any] = {"endpoint": CHAT, "input_file_id": "file-1", "completion_window": "24h"}


def a_batch(**changes: Any) -> Batch:
    """A batch as it is created."""
    return Batch(
        **{"id": "batch_1", "project": "p", "key_id": None, "order": Order(CHAT, "f"), "stamps": {}, **changes}
    )


# Lines


def test_a_line_is_read() -> None:
    line = read_line(3, json.dumps(GOOD).encode(), CHAT)
    assert (line.number, line.custom_id, line.body) == (3, "a", {"messages": []})


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"{", "invalid_json_line"),
        (b"\xff", "invalid_json_line"),
        (b"[1]", "invalid_json_line"),
        (b'{"a": NaN}', "invalid_json_line"),
        (b"[" * 100_000, "invalid_json_line"),
        (b"9" * 5_000, "invalid_json_line"),
        (json.dumps({**GOOD, "custom_id": 3}).encode(), "invalid_custom_id"),
        (json.dumps({**GOOD, "custom_id": ""}).encode(), "invalid_custom_id"),
        (json.dumps({**GOOD, "method": "GET"}).encode(), "invalid_method"),
        (json.dumps({**GOOD, "url": EMBEDDINGS}).encode(), "mismatched_url"),
        (json.dumps({**GOOD, "body": []}).encode(), "invalid_body"),
    ],
)
def test_what_is_no_request_has_a_fault_with_its_line(raw: bytes, code: str) -> None:
    with pytest.raises(BadLineError) as bad:
        read_line(7, raw, CHAT)
    assert (bad.value.fault.code, bad.value.fault.line) == (code, 7)


@given(st.integers(1, 10**6))
def test_a_result_tells_its_line(number: int) -> None:
    assert number_in(result_id("batch_0f", number)) == number


def test_results_have_openais_shape() -> None:
    line = read_line(2, json.dumps(GOOD).encode(), CHAT)
    told = json.loads(answered("batch_1", line, Reply(200, "req_1", {"x": 1})))
    response = {"status_code": 200, "request_id": "req_1", "body": {"x": 1}}
    assert told == {"id": "batch_req_1_2", "custom_id": "a", "response": response, "error": None}
    told = json.loads(unanswered("batch_1", line, "batch_expired", "late"))
    assert told["response"] is None
    assert told["error"] == {"code": "batch_expired", "message": "late"}


@pytest.mark.parametrize(
    ("status", "code", "retry_after", "tries", "seconds"),
    [
        (200, None, None, 1, None),
        (400, "invalid_request", None, 1, None),
        (404, "model_not_found", None, 1, None),
        (503, "starting", 2.0, 50, 2.0),
        (503, "starting", 0.0, 50, 0.1),
        (503, "crashed", 900.0, 50, RETRY_MAX_SECONDS),
        (503, "initial", None, 1, 1.0),
        (503, "initial", None, 2, 2.0),
        (503, "initial", None, 3, None),
        (502, "engine_died", None, 1, 1.0),
        (502, "engine_died", 1.0, 3, None),
        (429, "rate_limit", None, 1, 1.0),
        (429, "insufficient_quota", None, 1, None),
        (500, "internal_error", None, 1, None),
    ],
)
def test_what_is_tried_again_and_when(
    status: int, code: str | None, retry_after: float | None, tries: int, seconds: float | None
) -> None:
    assert wait_seconds(Reply(status, "r", {"error": {"code": code}}, retry_after), tries) == seconds


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (NotAvailableError("Not now.", code="starting", retry_after_seconds=3), "server_error"),
        (NotFoundError("Nothing.", details={"nearest": "x"}), "not_found_error"),
        (RateLimitedError("Slowly.", retry_after_seconds=3), "rate_limit_error"),
    ],
)
def test_errors_of_ours_are_the_replies_that_they_are_over_http(error: LlamavisorError, kind: str) -> None:
    reply = failure(error, "req_1")
    assert (reply.status, reply.retry_after_seconds) == (error.status, error.retry_after_seconds)
    assert reply.document == json.loads(error_response(CHAT, error).text or "")
    assert reply.document["error"]["type"] == kind


@pytest.mark.parametrize(
    ("status", "headers", "body", "told"),
    [
        (200, {}, b'{"a": 1}', (200, None)),
        (503, {"Retry-After": "7"}, b'{"error": {}}', (503, 7.0)),
        (503, {"Retry-After": "soon"}, b'{"error": {}}', (503, None)),
        (200, {}, b"words", (502, None)),
        (200, {}, b"[1]", (502, None)),
    ],
)
def test_an_engines_answer_is_a_reply(
    status: int, headers: dict[str, str], body: bytes, told: tuple[int, float | None]
) -> None:
    reply = reply_of(Answer(status, headers, body, False, 1.0), "req_1")
    assert (reply.status, reply.retry_after_seconds) == told


# Batches


def test_the_states_are_those_of_openai_and_no_way_leads_back() -> None:
    batch = a_batch()
    for status in (BatchStatus.IN_PROGRESS, BatchStatus.FINALIZING, BatchStatus.COMPLETED):
        batch = batch.entered(status, 5)
        assert batch.stamps[status.value] == 5
    assert batch.is_over
    for status in BatchStatus:
        with pytest.raises(StateConflictError):
            batch.entered(status, 6)


def test_a_batch_survives_being_written_down() -> None:
    fault = Fault("invalid_body", "bad", 3)
    batch = a_batch(faults=(fault,), stamps={"created": 1}, seconds_left=5.5)
    stored = json.loads(json.dumps(batch.to_stored()))
    assert Batch.from_stored(stored) == batch


def test_its_json_is_openais() -> None:
    batch = a_batch(stamps={"created": 100}, total=3, completed=2, failed=1)
    told = batch.entered(BatchStatus.IN_PROGRESS, 101).to_wire()
    assert (told["created_at"], told["in_progress_at"], told["expires_at"]) == (100, 101, 100 + WINDOW_SECONDS)
    assert told["request_counts"] == {"total": 3, "completed": 2, "failed": 1}
    assert told["errors"] is None


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"endpoint": "/v1/images"}, "endpoint"),
        ({"endpoint": ["/v1/images"]}, "endpoint"),
        ({"input_file_id": 3}, "input_file_id"),
        ({"completion_window": "1h"}, "completion_window"),
        ({"output_expires_after": {}}, "output_expires_after"),
        ({"metadata": []}, "metadata"),
        ({"metadata": {"a": 1}}, "metadata"),
        ({"metadata": {"a" * 65: "b"}}, "metadata"),
        ({"metadata": {"a": "b" * 513}}, "metadata"),
        ({"metadata": {str(number): "" for number in range(17)}}, "metadata"),
    ],
)
def test_a_wrong_order_names_its_field(change: Mapping[str, Any], param: str) -> None:
    assert read_order(ORDER).endpoint == CHAT
    with pytest.raises(MalformedRequestError) as wrong:
        read_order({**ORDER, **change})
    assert wrong.value.param == param


# Turns


async def settle() -> None:
    """Let every task go as far as it can."""
    for _ in range(5):
        await asyncio.sleep(0)


ONE, OTHER = Servers(("one",)), Servers(("other",))
MINE, YOURS = Caller("mine"), Caller("yours")


class Crowd:
    """Tasks that take a turn and keep it until told."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.having: list[int] = []
        self.ends: dict[int, asyncio.Event] = {}
        self.tasks: dict[int, asyncio.Task[None]] = {}

    def add(self, number: int, servers: Servers = ONE, caller: Caller = MINE) -> None:
        """One more that wants a turn."""
        self.ends[number] = asyncio.Event()
        self.tasks[number] = asyncio.create_task(self._take(number, servers, caller))

    async def end(self, number: int) -> None:
        """One has done with its turn."""
        self.ends[number].set()
        await settle()

    async def _take(self, number: int, servers: Servers, caller: Caller) -> None:
        async with self.turns.turn(servers, caller):
            self.having.append(number)
            try:
                await self.ends[number].wait()
            finally:
                self.having.remove(number)

    async def close(self) -> None:
        """Send everybody home."""
        for task in self.tasks.values():
            task.cancel()
        for task in self.tasks.values():
            with suppress(asyncio.CancelledError):
                await task
        assert self.turns.own == 0


async def test_turns_are_given_in_order_and_given_back() -> None:
    crowd = Crowd(Turns(2))
    for number in range(5):
        crowd.add(number)
    await settle()
    assert crowd.having == [0, 1]
    crowd.tasks[2].cancel()
    await crowd.end(0)
    assert crowd.having == [1, 3]
    crowd.tasks[1].cancel()
    await settle()
    assert crowd.having == [3, 4]
    await crowd.close()


async def test_a_turn_that_comes_with_the_cancellation_goes_to_the_next() -> None:
    crowd = Crowd(Turns(1))
    for number in range(3):
        crowd.add(number)
    await settle()
    crowd.ends[0].set()
    await asyncio.sleep(0)
    crowd.tasks[1].cancel()
    await settle()
    assert crowd.having == [2]
    await crowd.close()


async def test_more_at_once_when_the_settings_say_so() -> None:
    crowd = Crowd(Turns(1))
    for number in range(4):
        crowd.add(number)
    await settle()
    crowd.turns.retune(3)
    await settle()
    assert crowd.having == [0, 1, 2]
    await crowd.close()


async def test_who_wants_another_model_does_not_wait() -> None:
    crowd = Crowd(Turns(2))
    for number in range(4):
        crowd.add(number)
    crowd.add(4, OTHER)
    await settle()
    assert crowd.having == [0, 1, 4]
    assert crowd.turns.own == 3
    await crowd.close()


async def test_projects_take_turns() -> None:
    crowd = Crowd(Turns(1))
    for number in range(4):
        crowd.add(number)
    for number in range(4, 6):
        crowd.add(number, caller=YOURS)
    await settle()
    order = []
    while crowd.having:
        order += crowd.having
        await crowd.end(crowd.having[0])
    assert order == [0, 1, 4, 2, 5, 3]
    await crowd.close()


async def test_no_more_at_once_than_the_engine_has_slots() -> None:
    crowd = Crowd(Turns(4))
    for number in range(4):
        crowd.add(number, Servers(("one",), 2))
    await settle()
    assert crowd.having == [0, 1]
    crowd.add(4, Servers(("one",), 3))
    await settle()
    assert crowd.having == [0, 1, 2]
    await crowd.close()


# Pages and names


def files(count: int) -> list[StoredFile]:
    """So many files."""
    return [StoredFile(f"file-{number}", "p", "n", "batch", 1, 1) for number in range(count)]


@given(st.integers(0, 30), st.integers(1, 10))
def test_the_pages_of_a_list_are_the_list(count: int, limit: int) -> None:
    items, seen, after = files(count), [], None
    while True:
        page = Page(limit, after).of(items)
        seen += [item["id"] for item in page["data"]]
        assert len(page["data"]) <= limit
        after = page["last_id"]
        if not page["has_more"]:
            break
    assert seen == [item.id for item in items]
    with pytest.raises(MalformedRequestError):
        Page(1, "nothing").of(items)


@pytest.mark.parametrize(
    ("given_name", "shown"),
    [
        ("a.jsonl", "a.jsonl"),
        ("../../etc/passwd", "passwd"),
        ("C:\\a\\b.txt", "b.txt"),
        ("a\x00\nb", "ab"),
        ("/", "file"),
        (None, "file"),
        ("x" * 300, "x" * 255),
    ],
)
def test_names_of_files_are_for_people_only(given_name: str | None, shown: str) -> None:
    assert shown_name(given_name) == shown


# Prompts


def test_prompts_keep_their_ids_and_get_one_where_they_have_none() -> None:
    wanted = read_prompts({"prompts": [{"prompt": "a", "id": "x"}, {"prompt": "b"}], "model": "auto", "timeout": 5})
    assert [prompt.id for prompt in wanted.prompts] == ["x", "2"]
    assert (wanted.model, wanted.timeout_seconds, wanted.sampling) == ("auto", 5, {})


def test_what_a_list_says_of_sampling_goes_with_each() -> None:
    wanted = read_prompts({"prompts": [{"prompt": "a"}], "max_tokens": 4, "temperature": 0, "top_p": None})
    assert wanted.sampling == {"max_tokens": 4, "temperature": 0}


@pytest.mark.parametrize(
    ("document", "param"),
    [
        ({}, "prompts"),
        ({"prompts": []}, "prompts"),
        ({"prompts": [{"prompt": "a"}] * 1_001}, "prompts"),
        ({"prompts": ["a"]}, "prompts[0]"),
        ({"prompts": [{"prompt": "a"}, {"prompt": 1}]}, "prompts[1]"),
        ({"prompts": [{"prompt": "a", "id": 1}]}, "prompts[0].id"),
        ({"prompts": [{"prompt": "a"}, {"prompt": "b", "model": 1}]}, "prompts[1].model"),
        ({"prompts": [{"prompt": "a"}], "model": 1}, "model"),
        ({"prompts": [{"prompt": "a"}], "timeout": 0.5}, "timeout"),
        ({"prompts": [{"prompt": "a"}], "timeout": True}, "timeout"),
        ({"prompts": [{"prompt": "a"}], "timeout": 301}, "timeout"),
        ({"prompts": [{"prompt": "a"}], "temperature": 3}, "temperature"),
        ({"prompts": [{"prompt": "a"}], "max_tokens": 0}, "max_tokens"),
        ({"prompts": [{"prompt": "a"}], "stop": "."}, "stop"),
        ({"prompts": [{"prompt": "a", "max_tokens": 1}]}, "prompts[0].max_tokens"),
    ],
)
def test_a_wrong_list_of_prompts_names_its_field(document: Mapping[str, Any], param: str) -> None:
    with pytest.raises(MalformedRequestError) as wrong:
        read_prompts(document)
    assert wrong.value.param == param


def test_sums_are_exact_and_unknown_costs_stay_unknown() -> None:
    usage = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
    priced = [Result(Prompt("a", "A"), "1", "x", usage, 1), Result(Prompt("b", "B"), "2", "y", usage, 2)]
    failed = Result(Prompt("c", "C"), "3", error="no", error_code="model_not_found")
    told = summary([*priced, failed])
    assert (told["total"], told["completed"], told["failed"]) == (3, 2, 1)
    assert (told["total_cost"], told["total_tokens"]) == (0.000003, 6)
    assert told["results"][2] == {
        "id": "c", "prompt": "C", "request_id": "3", "status": "failed", "error": "no", "error_code": "model_not_found",
    }  # fmt: skip
    assert told["results"][0].keys() == {"id", "prompt", "request_id", "status", "content", "usage", "cost"}
    assert summary([Result(Prompt("a", "A"), "1", "x", usage, None), *priced])["total_cost"] is None
    assert summary([failed])["total_cost"] == 0
