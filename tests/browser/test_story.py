"""The main story: a newcomer opens the page, chats, kills the engine from outside, and the chat goes on."""

import os
import re
import signal

import pytest
from playwright.async_api import expect

from tests.fixtures.chat_page import ChatPage
from tests.fixtures.chromium import Watcher
from tests.fixtures.site import Site

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

# What the card said in passing: a state may last for less time than a test needs to look.
REMEMBER_HEADLINES = """
() => {
  const line = document.querySelector('[data-part="headline"]');
  window.headlines = [line.textContent];
  new MutationObserver(() => window.headlines.push(line.textContent))
    .observe(line, { childList: true, characterData: true, subtree: true });
}
"""


async def test_from_starting_to_a_chat_that_survives_the_death_of_its_engine(site: Site, watcher: Watcher) -> None:
    await site.start()
    status = await watcher.open(site.url)
    badge = status.locator('[data-part="state"]')
    assert await badge.text_content() in ("starting", "ready")
    await expect(badge).to_have_text("ready")
    await expect(status.get_by_role("heading", name="All is well")).to_be_visible()
    await expect(status.locator(".model-name").first).to_contain_text("demo")

    chat = await ChatPage.open(watcher, site.url)
    answer = await chat.ask("What is the capital of France?")
    await expect(answer.locator(".figures")).to_have_text(re.compile(r"demo.* · \d+ tokens?( · [\d,.]+ tokens/s)?"))

    await status.evaluate(REMEMBER_HEADLINES)
    old = await status.locator('[data-fact="pid"] dd').text_content()
    os.kill(int(str(old)), signal.SIGKILL)
    await status.wait_for_function(
        "() => window.headlines.some((each) => /^crashed — killed by signal 9 — retry 1\\/5 in [12] s$/.test(each))"
    )
    await expect(badge).to_have_text("ready")
    await expect(status.locator('[data-fact="pid"] dd')).not_to_have_text(str(old))
    await expect(status.locator('[data-fact="lastCrash"] dd')).to_have_text("killed by signal 9")
    timeline = status.locator(".timeline .what")
    await expect(timeline.nth(0)).to_have_text("ready")
    await expect(timeline.nth(2)).to_have_text("crashed — killed by signal 9 — retry 1/5")

    await chat.ask("Who are you?")
    await expect(chat.questions).to_have_count(2)


async def test_tokens_stream_in_one_after_the_other(stage: Site, watcher: Watcher) -> None:
    # The demo model's whole answer may come between two frames.
    await stage.tell("ready", token_interval_seconds=0.1)
    chat = await ChatPage.open(watcher, stage.url, "ready")
    await chat.page.evaluate(
        """() => {
          window.lengths = new Set();
          new MutationObserver(() => {
            const body = [...document.querySelectorAll('.turn.assistant .markdown')].at(-1);
            if (body && body.textContent) window.lengths.add(body.textContent.length);
          }).observe(document.querySelector('[data-part="turns"]'), { childList: true, characterData: true, subtree: true });
        }"""
    )
    await chat.ask("Tell me a short story.")
    assert await chat.page.evaluate("() => window.lengths.size") > 1
