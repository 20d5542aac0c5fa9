"""The chat page when something goes wrong: nothing that was cut is ever shown as complete."""

import re

import pytest
from playwright.async_api import expect

from tests.fixtures.chat_page import ChatPage
from tests.fixtures.chromium import Watcher
from tests.fixtures.site import Site, eventually

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

# The browser itself reports answers with an error status, and streams that end without their last chunk.
BROWSER_SAYS_SO = (r"status of 50[23]", r"ERR_INCOMPLETE_CHUNKED")
# How it is with a waiting request is told often.
TALKATIVE = {"comment_seconds": 0.2}


async def test_a_crash_in_mid_answer_is_marked_and_a_retry_answers(site: Site, watcher: Watcher) -> None:
    watcher.tolerate(*BROWSER_SAYS_SO)
    await site.start({"one": site.stand_in()})
    await site.tell("one", stream_fault="kill", fault_after=3)
    chat = await ChatPage.open(watcher, site.url, "one")
    answer = await chat.send("a question")
    await expect(answer).to_have_attribute("data-status", "cut")
    await expect(answer.locator(".markdown")).to_have_text("token0 token1 token2")
    await expect(answer.get_by_text("Cut off:")).to_contain_text("killed by signal 9")
    # The next process knows nothing of the fault.
    await answer.get_by_role("button", name="Retry").click()
    await expect(answer).to_have_attribute("data-status", "done")
    await expect(answer.locator(".markdown")).to_contain_text("token7")
    await expect(answer).to_contain_text("2 / 2")
    await expect(answer.get_by_text("Cut off:")).to_have_count(0)


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("no_done", "Cut off:"),
        ("error_event", "the decoder failed on purpose"),
        ("close", "Cut off:"),
        ("bad_json", "Cut off:"),
    ],
)
async def test_a_stream_that_ends_badly_is_marked(stage: Site, watcher: Watcher, fault: str, told: str) -> None:
    watcher.tolerate(*BROWSER_SAYS_SO)
    await stage.tell("ready", stream_fault=fault, fault_after=3)
    chat = await ChatPage.open(watcher, stage.url, "ready")
    answer = await chat.send("a question")
    await expect(answer).to_have_attribute("data-status", "cut")
    await expect(answer.locator(".markdown")).to_contain_text("token2")
    await expect(answer.locator(".notice")).to_contain_text(told)
    await stage.tell("ready", stream_fault="")
    await answer.get_by_role("button", name="Retry").click()
    await expect(answer).to_have_attribute("data-status", "done")


async def test_what_comes_in_unusual_pieces_is_complete(stage: Site, watcher: Watcher) -> None:
    for fault, text in (("split_utf8", "é☃"), ("crlf", "token7"), ("two_done", "token7")):
        await stage.tell("ready", stream_fault=fault, fault_after=3)
        chat = await ChatPage.open(watcher, stage.url, "ready")
        answer = await chat.send("a question")
        await expect(answer).to_have_attribute("data-status", "done")
        await expect(answer.locator(".markdown")).to_contain_text(text)


async def test_a_message_waits_for_the_server_and_is_sent(site: Site, watcher: Watcher) -> None:
    watcher.tolerate(*BROWSER_SAYS_SO)
    await site.start({"one": site.stand_in(autostart=False, on_demand=False)})
    chat = await ChatPage.open(watcher, site.url, "one")
    await expect(chat.page.locator('[data-part="hint"]')).to_have_text(
        "one is not running. Start it, and your message is sent when it is ready."
    )
    answer = await chat.send("a question")
    await expect(answer).to_have_attribute("data-status", "waiting")
    await expect(answer).to_contain_text("Waiting: one is not running")
    await chat.page.get_by_role("button", name="Start", exact=True).click()
    await expect(answer).to_have_attribute("data-status", "done")
    await expect(answer.locator(".markdown")).to_contain_text("token7")


async def test_a_message_has_its_model_loaded_and_tells_how_far_it_is(site: Site, watcher: Watcher) -> None:
    loads = {"load_seconds": 2, "load_by_reading": True}
    await site.start({"one": site.stand_in(autostart=False, knobs=loads)}, gateway=TALKATIVE)
    chat = await ChatPage.open(watcher, site.url, "one")
    answer = await chat.send("a question")
    await expect(answer).to_contain_text(re.compile("Waiting: the model is loading, [0-9]+ %"))
    await expect(answer).to_have_attribute("data-status", "done")


async def test_a_message_that_waits_for_its_turn_tells_its_place(site: Site, watcher: Watcher) -> None:
    await site.start({"one": site.stand_in(max_in_flight=1)}, gateway=TALKATIVE)
    await site.tell("one", token_interval_seconds=60)
    first, second, third = [await ChatPage.open(watcher, site.url, "one") for _ in range(3)]
    await expect(await first.send("a question")).to_contain_text("Waiting for the first token")

    async def is_sent() -> bool:
        stages = [each["stage"] for each in (await site.get("/v1/requests/in-flight"))["requests"]]
        return stages in (["sent"], ["streaming"])

    await eventually(is_sent, "the first request to be at the engine")
    await expect(await second.send("a question")).to_contain_text("Waiting: next in line")
    answer = await third.send("a question")
    await expect(answer).to_contain_text("Waiting: 2nd in line")
    await second.page.keyboard.press("Escape")
    await expect(answer).to_contain_text("Waiting: next in line")


async def test_the_model_asked_for_is_taken_when_it_arrives(site: Site, watcher: Watcher) -> None:
    first, late = site.stand_in(), site.stand_in(autostart=False)
    await site.start({"first": first})
    chat = await ChatPage.open(watcher, site.url, "late")
    choice = chat.page.get_by_role("combobox", name="Model")
    await expect(choice).to_have_value("first")
    await site.reconfigure({"first": first, "late": late})
    await expect(choice).to_have_value("late")
    await choice.select_option("first")
    await site.reconfigure({"first": first, "late": late, "third": late})
    await expect(choice.get_by_role("option")).to_have_count(3)
    await expect(choice).to_have_value("first")


async def test_the_model_asked_for_stays_chosen_while_its_server_restarts(site: Site, watcher: Watcher) -> None:
    """By its model's id, which nobody has while the server loads."""
    second = site.stand_in(knobs={"load_seconds": 3})
    second["engine"]["extra_args"] = ["--alias", "some-id"]
    await site.start({"first": site.stand_in(), "second": second})
    for name in ("first", "second"):
        await site.reach(name, "ready")
    chat = await ChatPage.open(watcher, site.url, "some-id")
    choice = chat.page.get_by_role("combobox", name="Model")
    await expect(choice).to_have_value("second")
    await site.post("/admin/instances/second/restart")
    await expect(choice.get_by_role("option", name="second (starting)")).to_be_attached()
    # Now, and not after a while.
    assert await choice.input_value() == "second"


async def test_waiting_can_be_given_up(stage: Site, watcher: Watcher) -> None:
    chat = await ChatPage.open(watcher, stage.url, "crashing")
    await expect(chat.page.locator('[data-part="strip-story"]')).to_contain_text("exited with code 7")
    answer = await chat.send("a question")
    await expect(answer).to_contain_text("Waiting: crashing crashed")
    await chat.page.keyboard.press("Escape")
    await expect(answer).to_contain_text("Stopped by you before the first token")


async def test_a_refusal_of_the_engine_is_shown(stage: Site, watcher: Watcher) -> None:
    watcher.tolerate(r"status of 4\d\d")
    await stage.tell("ready", chat_status=400)
    chat = await ChatPage.open(watcher, stage.url, "ready")
    answer = await chat.send("a question")
    await expect(answer).to_have_attribute("data-status", "failed")
    await expect(answer.locator(".notice")).to_contain_text("on purpose")
    await stage.tell("ready", chat_status=200)
    await answer.get_by_role("button", name="Retry").click()
    await expect(answer).to_have_attribute("data-status", "done")
