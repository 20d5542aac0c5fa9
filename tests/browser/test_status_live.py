"""The status page while things change: buttons, timeline, log, a supervisor that goes and comes back."""

import re
import signal

import pytest
from playwright.async_api import Page, expect

from tests.fixtures.chromium import Watcher
from tests.fixtures.site import Site

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

MAX_TABS = 40
# Of an instance that dies while loading and has one retry; newest first.
STORY = ["error", "crashed", "starting", "crashed", "starting", "initial"]
# The browser itself reports each connection that it could not make.
SERVER_IS_GONE = (
    r"ERR_CONNECTION_REFUSED",
    r"WebSocket connection to .* failed",
    r"ERR_EMPTY_RESPONSE",
    r"ERR_CONNECTION_RESET",
    r"ERR_INCOMPLETE_CHUNKED",
)


async def tab_to(page: Page, selector: str) -> None:
    """Press Tab until the element has the focus, as somebody without a mouse does; the focus must be visible."""
    for _ in range(MAX_TABS):
        await page.keyboard.press("Tab")
        if await page.evaluate("(selector) => document.activeElement.matches(selector)", selector):
            outline = await page.evaluate("() => getComputedStyle(document.activeElement).outlineStyle")
            assert outline != "none", f"{selector} has the focus, and nothing shows it"
            return
    raise AssertionError(f"{selector} cannot be reached with Tab")


async def test_stop_start_restart_with_the_keyboard_only(site: Site, watcher: Watcher) -> None:
    await site.start({"one": site.stand_in()})
    await site.reach("one", "ready")
    page = await watcher.open(site.url)
    badge = page.locator('[data-part="state"]')
    await expect(badge).to_have_text("ready")
    await tab_to(page, '[data-action="stop"]')
    await page.keyboard.press("Enter")
    await expect(badge).to_have_text("initial")
    await page.keyboard.press("Home")
    await page.evaluate("() => document.activeElement.blur()")
    await tab_to(page, '[data-action="start"]')
    await page.keyboard.press("Space")
    await expect(badge).to_have_text("ready")
    before = await page.locator('[data-fact="pid"] dd').text_content()
    await page.evaluate("() => document.activeElement.blur()")
    await tab_to(page, '[data-action="restart"]')
    await page.keyboard.press("Enter")
    await expect(page.locator('[data-fact="pid"] dd')).not_to_have_text(str(before))
    await expect(badge).to_have_text("ready")
    story = ["ready", "starting", "initial", "stopping"] * 2 + ["ready"]
    await expect(page.locator(".timeline .what")).to_have_text([*story, "starting", "initial"])


async def test_the_timeline_tells_the_reason_of_each_change(site: Site, watcher: Watcher) -> None:
    supervision = {"max_retries": 1}
    dying = {"exit_at_once": True, "exit_code": 3, "stderr_text": "CUDA error: device-side assert"}
    await site.start({"one": site.stand_in(supervision=supervision, knobs=dying)})
    early = await watcher.open(site.url)
    await expect(early.locator('[data-part="state"]')).to_have_text("error")
    # Of what lasts for no time, an open page hears only that there was something, and asks.
    for page in (early, await watcher.open(site.url)):
        await expect(page.locator(".timeline .what")).to_have_count(len(STORY))
        told = await page.locator(".timeline .what").all_text_contents()
        assert [each.split(" — ")[0] for each in told] == STORY
        assert "exited with code 3" in told[1]
        assert "CUDA error" in told[1]
        assert "retry 1/1" in told[3]


async def test_the_log_follows(site: Site, watcher: Watcher) -> None:
    talkative = {"stdout_text": "the first words", "load_seconds": 0.1, "load_progress": True}
    await site.start({"one": site.stand_in(knobs=talkative)})
    page = await watcher.open(site.url)
    log = page.get_by_role("region", name="Log of one")
    await expect(log).to_contain_text("the first words")
    await expect(log).to_contain_text("model loaded")
    before = await log.locator(".log-line").count()
    await page.get_by_role("button", name="Restart").click()
    await expect(log.get_by_text("the first words")).to_have_count(2)
    await expect(log.get_by_text("model loaded")).to_have_count(2)
    assert await log.locator(".log-line").count() > before
    assert await log.evaluate("(e) => e.scrollHeight - e.scrollTop - e.clientHeight") < 24
    await page.get_by_role("searchbox", name="Show only lines that contain").fill("FIRST words")
    await expect(log.locator(".log-line:visible")).to_have_count(2)
    await expect(page.get_by_text("2 lines", exact=True)).to_be_visible()
    await page.get_by_role("searchbox", name="Show only lines that contain").fill("")
    await page.get_by_role("button", name="Pause").click()
    await page.get_by_role("button", name="Restart").click()
    resume = page.get_by_role("button", name=re.compile(r"Resume \(\d+ new\)"))
    await expect(resume).to_be_visible()
    await expect(log.get_by_text("the first words")).to_have_count(2)
    await resume.click()
    await expect(log.get_by_text("the first words")).to_have_count(3)


async def test_a_refusal_is_shown_on_the_card(site: Site, watcher: Watcher) -> None:
    watcher.tolerate("status of 409")
    await site.start({"one": site.stand_in()})
    await site.reach("one", "ready")
    page = await watcher.open(site.url)
    await expect(page.locator('[data-part="state"]')).to_have_text("ready")
    # Somebody else was quicker, and this page has not heard of it yet.
    await page.route(
        "**/admin/instances/one/stop", lambda route: route.continue_(url=f"{site.url}/admin/instances/one/start")
    )
    await page.get_by_role("button", name="Stop").click()
    await expect(page.get_by_role("alert")).to_contain_text("ready")
    await page.get_by_role("button", name="Dismiss").click()
    await expect(page.locator('[data-part="refusal"]')).to_be_hidden()


async def test_a_supervisor_that_is_gone_and_comes_back(site: Site, watcher: Watcher) -> None:
    watcher.tolerate(*SERVER_IS_GONE)
    await site.start({"one": site.stand_in()})
    await site.reach("one", "ready")
    page = await watcher.open(site.url)
    indicator = page.locator('[data-part="connection-text"]')
    await expect(indicator).to_have_text("Live")
    await page.evaluate("() => { window.isSamePage = true; }")
    old = await page.locator('[data-fact="pid"] dd').text_content()
    await site.end(signal.SIGKILL)
    await expect(indicator).to_have_text("Reconnecting")
    await expect(indicator).to_have_text("Offline")
    await expect(page.get_by_role("heading", level=1)).to_have_text("No connection to Llamavisor")
    await expect(page.locator('[data-part="summary-detail"]')).to_have_text(
        re.compile(r"^What follows is the last known state, from \d\d:\d\d:\d\d\.$")
    )
    await expect(page.locator('[data-part="connection-age"]')).to_contain_text("last update")
    await expect(page.locator('[data-part="state"]')).to_have_text("ready")
    await page.get_by_role("button", name="Restart").click()
    await expect(page.get_by_role("alert")).to_contain_text("does not answer")

    await site.start_again()
    await expect(indicator).to_have_text("Live")
    await expect(page.locator('[data-fact="pid"] dd')).not_to_have_text(str(old))
    await expect(page.locator('[data-part="state"]')).to_have_text("ready")
    await expect(page.get_by_role("heading", level=1)).to_have_text("All is well")
    await page.get_by_role("button", name="Stop").click()
    await expect(page.locator('[data-part="state"]')).to_have_text("initial")
    assert await page.evaluate("() => window.isSamePage")


async def test_figures_move_with_the_traffic(demo: Site, watcher: Watcher) -> None:
    await demo.reach("demo", "ready")
    page = await watcher.open(demo.url)
    total = page.locator('[data-metric="totalRequests"]')
    await expect(total).to_have_text(re.compile(r"^\d+$"))
    before = int(str(await total.text_content()))
    await page.evaluate(
        """() => fetch('/v1/chat/completions', { method: 'POST', headers: { 'content-type': 'application/json' },
          body: JSON.stringify({ messages: [{ role: 'user', content: 'Hello' }], max_tokens: 8 }) }).then((r) => r.json())"""
    )
    await expect(total).to_have_text(str(before + 1))
    await expect(page.locator('[data-metric="memoryUsage"]')).to_have_text(re.compile(r"^[\d.]+ MB$"))
    await expect(page.locator('[data-chart="tokensPerSecond"] canvas')).to_be_visible()
