"""The status page in each state that an instance can be in."""

import re

import pytest
from playwright.async_api import Locator, Page, expect

from tests.fixtures.chromium import Watcher
from tests.fixtures.site import Site

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

STATES = {
    "ready": "ready",
    "idle": "initial",
    "loading": "starting",
    "crashing": "crashed",
    "broken": "error",
}


def card(page: Page, name: str) -> Locator:
    """The card of one instance."""
    return page.get_by_role("article", name=f"Instance {name}")


def fact(page: Page, name: str, which: str) -> Locator:
    """One figure on a card."""
    return card(page, name).locator(f'[data-fact="{which}"] dd')


async def can_press(page: Page, name: str) -> dict[str, bool]:
    """Which of the three buttons of a card can be pressed."""
    buttons = card(page, name).get_by_role("group", name="Actions").get_by_role("button")
    return {await each.inner_text(): await each.is_enabled() for each in await buttons.all()}


async def test_initial(stage: Site, watcher: Watcher) -> None:
    page = await watcher.open(stage.url)
    idle = card(page, "idle")
    await expect(idle.locator('[data-part="state"]')).to_have_text("initial")
    await expect(idle).to_contain_text("is not loaded now: the next request for it loads it")
    await expect(idle.locator("progress")).to_be_hidden()
    assert await can_press(page, "idle") == {"Start": True, "Stop": False, "Restart": False}


async def test_starting_shows_progress(stage: Site, watcher: Watcher) -> None:
    page = await watcher.open(stage.url)
    loading = card(page, "loading")
    await expect(loading.locator('[data-part="state"]')).to_have_text("starting")
    await expect(loading.locator("progress")).to_have_attribute("value", re.compile(r"^0\.\d+$"))
    await expect(loading.locator('[data-part="headline"]')).to_have_text(re.compile(r"^starting — loading, \d+\s?%$"))
    await expect(loading).to_contain_text("it does not answer yet")
    before = await loading.locator("progress").get_attribute("value")
    await expect(loading.locator("progress")).not_to_have_attribute("value", str(before))
    assert await can_press(page, "loading") == {"Start": False, "Stop": True, "Restart": True}


async def test_ready(stage: Site, watcher: Watcher) -> None:
    page = await watcher.open(stage.url)
    ready = card(page, "ready")
    await expect(ready.locator('[data-part="state"]')).to_have_text("ready")
    await expect(ready.locator('[data-part="headline"]')).to_be_hidden()
    await expect(ready).to_contain_text("answers, and its answers keep being checked")
    await expect(ready.locator(".model-name")).to_contain_text("model")
    await expect(fact(page, "ready", "retries")).to_have_text("0 of 5")
    uptime = await fact(page, "ready", "uptime").text_content()
    await expect(fact(page, "ready", "uptime")).not_to_have_text(str(uptime))
    assert await can_press(page, "ready") == {"Start": False, "Stop": True, "Restart": True}


async def test_crashed_counts_down_to_the_next_try(stage: Site, watcher: Watcher) -> None:
    page = await watcher.open(stage.url)
    crashing = card(page, "crashing")
    headline = crashing.locator('[data-part="headline"]')
    await expect(headline).to_have_text(
        re.compile(r"^crashed — exited with code 7 while loading — retry \d/5 in (\d+ min )?\d+ s$")
    )
    first = await headline.text_content()
    await expect(headline).not_to_have_text(str(first))
    await expect(headline).to_have_text(re.compile(r" in (\d+ min )?\d+ s$"))
    await crashing.get_by_text("Last error output").click()
    await expect(crashing.locator('[data-part="stderr-text"]')).to_contain_text("the engine says why")
    assert await can_press(page, "crashing") == {"Start": True, "Stop": True, "Restart": True}


async def test_error_says_what_would_help(stage: Site, watcher: Watcher) -> None:
    page = await watcher.open(stage.url)
    broken = card(page, "broken")
    await expect(broken.locator('[data-part="state"]')).to_have_text("error")
    await expect(broken.locator('[data-part="explanation"]')).to_contain_text("/nowhere/llama-server")
    remedy = (await stage.status("broken"))["remedy"]
    await expect(broken).to_contain_text(remedy.replace("`", ""))
    assert await can_press(page, "broken") == {"Start": True, "Stop": True, "Restart": True}


async def test_stopping(stage: Site, watcher: Watcher) -> None:
    page = await watcher.open(stage.url)
    stubborn = card(page, "stubborn")
    await stubborn.get_by_role("button", name="Start", exact=True).click()
    await expect(stubborn.locator('[data-part="state"]')).to_have_text("ready")
    await stubborn.get_by_role("button", name="Stop").click()
    await expect(stubborn.locator('[data-part="state"]')).to_have_text("stopping")
    await expect(stubborn).to_contain_text("it gets a moment to finish, then it is killed")
    assert await can_press(page, "stubborn") == {"Start": False, "Stop": False, "Restart": False}


async def test_the_summary_names_what_needs_attention(stage: Site, watcher: Watcher) -> None:
    page = await watcher.open(stage.url)
    await expect(page.get_by_role("heading", level=1)).to_have_text("2 instances need attention")
    await expect(page.locator('[data-part="summary-detail"]')).to_have_text(re.compile(r"\d of 6 instances ready"))


async def test_without_javascript_the_page_is_complete(stage: Site, watcher: Watcher) -> None:
    page = await watcher.open(stage.url, java_script_enabled=False)
    for name, state in STATES.items():
        shown = await stage.status(name)
        await expect(card(page, name).locator('[data-part="state"]')).to_have_text(state)
        if state != "starting":
            await expect(card(page, name).locator('[data-part="explanation"]')).to_have_text(
                shown["explanation"].replace("`", "")
            )
            await expect(card(page, name).locator('[data-part="headline"]')).to_have_text(shown["headline"])
        await expect(card(page, name).get_by_role("button")).to_have_count(0)
    await expect(card(page, "ready").locator(".model-name")).to_contain_text("model")
    await expect(page.get_by_role("heading", level=1)).to_have_text("2 instances need attention")
    await card(page, "crashing").get_by_role("link", name="The last 200 lines of the log").click()
    await expect(page.locator("body")).to_contain_text("the engine says why")


async def test_nothing_configured_says_what_to_do(site: Site, watcher: Watcher) -> None:
    await site.start({})
    for javascript in (True, False):
        page = await watcher.open(site.url, java_script_enabled=javascript)
        await expect(page.get_by_role("heading", name="No instance is configured")).to_be_visible()
        await expect(page.get_by_role("heading", level=1)).to_have_text("Nothing to supervise yet")
        await expect(page.get_by_role("article")).to_have_count(0)
    page = await watcher.open(site.url)
    await site.reconfigure({"late": site.stand_in()})
    await expect(card(page, "late").locator('[data-part="state"]')).to_have_text("ready")
    await expect(page.get_by_role("heading", name="No instance is configured")).to_be_hidden()
    await site.reconfigure({})
    await expect(page.get_by_role("heading", name="No instance is configured")).to_be_visible()
