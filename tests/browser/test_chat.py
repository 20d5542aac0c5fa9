"""The chat page when all goes well: stopping, editing, settings, reloading."""

import json

import aiohttp
import pytest
from playwright.async_api import expect

from tests.fixtures.chat_page import ChatPage
from tests.fixtures.chromium import Watcher
from tests.fixtures.site import Site

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

MARKDOWN = """# A title

Some **bold** words and `code`.

- one
- two

| left | right |
| --- | ---: |
| a | 1 |

```python
print("hello")
```
"""
PATIENTLY = {"token_interval_seconds": 0.02, "token_count": 3_000}


async def test_escape_stops_the_answer_and_keeps_what_came(stage: Site, watcher: Watcher) -> None:
    aborted = (await stage.tell("ready", **PATIENTLY))["aborted"]
    chat = await ChatPage.open(watcher, stage.url, "ready")
    answer = await chat.send("Go on for ever")
    await expect(answer).to_contain_text("token3")
    await expect(chat.page.get_by_role("button", name="Stop the answer")).to_be_visible()
    await chat.page.keyboard.press("Escape")
    await expect(answer).to_have_attribute("data-status", "stopped")
    await expect(answer).to_contain_text("Stopped by you")
    await expect(answer).to_contain_text("token3")
    await expect(chat.page.get_by_role("button", name="Send", exact=True)).to_be_visible()
    await expect(chat.message).to_be_focused()
    # The engine was told, too: nobody pays for tokens that nobody reads.
    while (await stage.tell("ready"))["aborted"] == aborted:
        continue


async def test_up_edits_the_last_question_and_sends_it_again(stage: Site, watcher: Watcher) -> None:
    chat = await ChatPage.open(watcher, stage.url, "ready")
    await chat.ask("frist question")
    await chat.page.keyboard.press("ArrowUp")
    editor = chat.page.get_by_role("textbox", name="Edit the message")
    await expect(editor).to_be_focused()
    await expect(editor).to_have_value("frist question")
    await editor.fill("first question")
    await chat.page.keyboard.press("Enter")
    await expect(chat.answers).to_have_count(1)
    await expect(chat.answers).to_have_attribute("data-status", "done")
    await expect(chat.questions).to_have_text("first question")
    seen = (await stage.tell("ready"))["last_request"]["body"]
    assert seen["messages"] == [{"role": "user", "content": "first question"}]


async def test_escape_leaves_the_editor_without_a_change(stage: Site, watcher: Watcher) -> None:
    chat = await ChatPage.open(watcher, stage.url, "ready")
    await chat.ask("a question")
    await chat.page.keyboard.press("ArrowUp")
    await chat.page.get_by_role("textbox", name="Edit the message").fill("something else")
    await chat.page.keyboard.press("Escape")
    await expect(chat.questions).to_have_text("a question")
    await expect(chat.answers).to_have_count(1)


async def test_answer_again_keeps_both_answers(stage: Site, watcher: Watcher) -> None:
    await stage.tell("ready", stream_text="The first answer.")
    chat = await ChatPage.open(watcher, stage.url, "ready")
    await chat.ask("a question")
    await stage.tell("ready", stream_text="The second answer.")
    await chat.page.get_by_role("button", name="Answer again").click()
    await expect(chat.answers.locator(".markdown")).to_have_text("The second answer.")
    await chat.page.get_by_role("button", name="Previous answer").click()
    await expect(chat.answers.locator(".markdown")).to_have_text("The first answer.")
    await expect(chat.answers).to_contain_text("1 / 2")


async def test_the_conversation_and_the_draft_survive_a_reload(stage: Site, watcher: Watcher) -> None:
    await stage.tell("ready", stream_text="What was said.")
    chat = await ChatPage.open(watcher, stage.url, "ready")
    await chat.ask("a question")
    await chat.message.fill("half a thought")
    await chat.page.reload()
    await expect(chat.questions).to_have_text("a question")
    await expect(chat.answers.locator(".markdown")).to_have_text("What was said.")
    await expect(chat.message).to_have_value("half a thought")
    await chat.page.get_by_role("button", name="New chat").click()
    await expect(chat.page.get_by_role("heading", name="What would you like to know?")).to_be_visible()
    await chat.page.reload()
    await expect(chat.answers).to_have_count(0)


async def test_an_answer_goes_on_over_a_reload_and_is_stopped_for_good(stage: Site, watcher: Watcher) -> None:
    seen = await stage.tell("ready", **PATIENTLY)
    chat = await ChatPage.open(watcher, stage.url, "ready")
    answer = await chat.send("Go on for ever")
    await expect(answer).to_contain_text("token3")
    for token in ("token60", "token120"):
        await chat.page.reload()
        await expect(chat.answers).to_contain_text(token)
        await expect(chat.answers).to_have_attribute("data-status", "streaming")
        await expect(chat.answers).to_contain_text("token0 token1 token2 token3")
    await chat.page.get_by_role("button", name="Stop the answer").click()
    await expect(chat.answers).to_have_attribute("data-status", "stopped")
    told = await stage.tell("ready")
    while told["aborted"] == seen["aborted"]:
        told = await stage.tell("ready")
    assert told["requests"] == seen["requests"] + 1
    await chat.page.reload()
    await expect(chat.answers).to_have_attribute("data-status", "stopped")


async def test_an_answer_that_ended_during_a_reload_is_whole(stage: Site, watcher: Watcher) -> None:
    await stage.tell("ready", token_interval_seconds=0.02, token_count=100)
    chat = await ChatPage.open(watcher, stage.url, "ready")
    answer = await chat.send("Go on for a while")
    await expect(answer).to_contain_text("token3")
    await chat.page.goto("about:blank")
    while (await stage.tell("ready"))["processing"]:
        continue
    await chat.page.go_back()
    await expect(chat.answers).to_have_attribute("data-status", "done")
    await expect(chat.answers).to_contain_text("token99")


async def test_an_answer_that_a_reload_cut_off_is_marked(stage: Site, watcher: Watcher) -> None:
    await stage.tell("ready", **PATIENTLY)
    chat = await ChatPage.open(watcher, stage.url, "ready")
    answer = await chat.send("Go on for ever")
    await expect(answer).to_contain_text("token3")
    pending = json.loads(await chat.page.evaluate("sessionStorage.getItem('llamavisor.chat.stream')"))
    # As it is for a browser that does not let the page remember anything.
    await chat.page.evaluate("sessionStorage.clear()")
    await chat.page.reload()
    await expect(chat.answers).to_have_attribute("data-status", "cut")
    await expect(chat.answers).to_contain_text("token3")
    await expect(chat.answers).to_contain_text("the page was closed or reloaded")
    async with (
        aiohttp.ClientSession() as session,
        session.delete(f"{stage.url}/v1/streams/{pending['streamId']}") as answered,
    ):
        assert answered.status == 204


async def test_settings_are_sent_and_remembered(stage: Site, watcher: Watcher) -> None:
    chat = await ChatPage.open(watcher, stage.url, "ready")
    await chat.page.get_by_role("button", name="Settings").click()
    dialog = chat.page.get_by_role("dialog", name="Settings")
    values = {"Temperature": "0.4", "Top p": "0.9", "Top k": "20", "Longest answer": "5", "Seed": "7"}
    for label, value in values.items():
        await dialog.get_by_role("spinbutton", name=label).fill(value)
    await dialog.get_by_role("textbox", name="System prompt").fill("Be brief.")
    await chat.page.keyboard.press("Escape")
    await expect(dialog).to_be_hidden()
    await expect(chat.page.locator('[data-part="settings-count"]')).to_have_text("6")
    answer = await chat.ask("a question")
    await expect(answer).to_contain_text("5 tokens")
    seen = (await stage.tell("ready"))["last_request"]["body"]
    sampling = {"temperature": 0.4, "top_p": 0.9, "top_k": 20, "max_tokens": 5, "seed": 7}
    assert {key: seen[key] for key in sampling} == sampling
    assert seen["messages"][0] == {"role": "system", "content": "Be brief."}
    await chat.page.reload()
    await chat.page.get_by_role("button", name="Settings").click()
    await expect(dialog.get_by_role("spinbutton", name="Temperature")).to_have_value("0.4")
    await dialog.get_by_role("button", name="Back to the defaults").click()
    await chat.page.keyboard.press("Escape")
    await chat.ask("another question")
    seen = (await stage.tell("ready"))["last_request"]["body"]
    assert not sampling.keys() & seen.keys()


async def test_a_setting_out_of_bounds_is_refused_where_it_is_typed(stage: Site, watcher: Watcher) -> None:
    chat = await ChatPage.open(watcher, stage.url, "ready")
    await chat.page.get_by_role("button", name="Settings").click()
    temperature = chat.page.get_by_role("spinbutton", name="Temperature")
    await temperature.fill("3")
    await expect(chat.page.get_by_text("A number from 0 to 2")).to_be_visible()
    await expect(temperature).to_have_attribute("aria-invalid", "true")
    await chat.page.get_by_role("button", name="Close").click()
    await chat.ask("a question")
    assert "temperature" not in (await stage.tell("ready"))["last_request"]["body"]


async def test_markdown_is_rendered(stage: Site, watcher: Watcher) -> None:
    await stage.tell("ready", stream_text=MARKDOWN)
    chat = await ChatPage.open(watcher, stage.url, "ready")
    answer = (await chat.ask("a question")).locator(".markdown")
    await expect(answer.locator("h1")).to_have_text("A title")
    await expect(answer.locator("strong")).to_have_text("bold")
    await expect(answer.locator("li")).to_have_text(["one", "two"])
    await expect(answer.get_by_role("cell")).to_have_text(["a", "1"])
    await expect(answer.locator("pre code")).to_have_text('print("hello")\n')
    await expect(answer.get_by_role("button", name="Copy the code")).to_be_visible()


async def test_the_model_that_was_chosen_answers(stage: Site, watcher: Watcher) -> None:
    chat = await ChatPage.open(watcher, stage.url)
    choice = chat.page.get_by_role("combobox", name="Model")
    await expect(choice.locator("option")).to_have_count(6)
    await choice.select_option("ready")
    await chat.ask("a question")
    stored = json.loads(await chat.page.evaluate("() => localStorage.getItem('llamavisor.chat.v1')"))
    assert stored[1]["answers"][0]["model"] == "ready"
    await chat.page.reload()
    await expect(choice).to_have_value("ready")
