"""Narrow and wide, light and dark, and what assistive technology needs, in each state."""

import json
from typing import Literal

import pytest
from playwright.async_api import Page, expect

from hatch_build import FrontEnd
from tests.fixtures.chat_page import ChatPage
from tests.fixtures.chromium import Watcher
from tests.fixtures.serve_process import ROOT
from tests.fixtures.site import Site

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

LIGHT: Literal["light"] = "light"
DARK: Literal["dark"] = "dark"
NARROW = {"width": 320, "height": 640}
WIDE_TEXT = f"""A {"very" * 60}longword, `{"code" * 60}`, <https://example.org/{"path/" * 40}>

```
{"a long line of code " * 20}
```

| {" | ".join(f"column {number}" for number in range(12))} |
| {" | ".join("---" for _ in range(12))} |
| {" | ".join("value" for _ in range(12))} |
"""
# axe-core's rules for WCAG 2.2 A and AA, and its advice.
DARK_RULES = ["color-contrast", "link-in-text-block"]
AXE_TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


async def assert_fits(page: Page) -> None:
    """The page can not be scrolled sideways, and nothing sticks out of it."""
    width = await page.evaluate("() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert width[0] <= width[1], width
    outside = await page.evaluate(
        """() => [...document.querySelectorAll('button, a, h1, h2, h3, p, input, select, textarea')]
          .filter((each) => each.checkVisibility() && !each.closest('.visually-hidden, .skip-link, .table-frame, pre'))
          .filter((each) => {
            const box = each.getBoundingClientRect();
            return box.width > 0 && (box.left < -1 || box.right > innerWidth + 1);
          })
          .map((each) => each.outerHTML.slice(0, 120))"""
    )
    assert not outside, outside


async def assert_accessible(page: Page) -> None:
    """axe-core finds nothing on the page; in the dark, nothing about its colours."""
    front_end = FrontEnd(ROOT)
    front_end.install()
    await page.evaluate((front_end.modules / "axe-core" / "axe.min.js").read_text(encoding="utf-8"))
    for scheme, wanted in ((LIGHT, AXE_TAGS), (DARK, DARK_RULES)):
        await page.emulate_media(color_scheme=scheme)
        found = await page.evaluate(f"() => axe.run({{ runOnly: {json.dumps(wanted)} }})")
        told = [
            (each["id"], node["html"][:160], node["failureSummary"])
            for each in found["violations"]
            for node in each["nodes"]
        ]
        assert not told, (scheme, told)


async def test_the_status_page_fits_320_pixels(stage: Site, watcher: Watcher) -> None:
    page = await watcher.open(stage.url, viewport=NARROW)
    await expect(page.locator('[data-part="connection"]')).to_have_attribute("data-connection", "live")
    for summary in await page.locator("summary:visible").all():
        await summary.click()
    await assert_fits(page)


async def test_the_chat_fits_320_pixels(stage: Site, watcher: Watcher) -> None:
    await stage.tell("ready", stream_text=WIDE_TEXT)
    chat = await ChatPage.open(watcher, stage.url, "ready", viewport=NARROW)
    await assert_fits(chat.page)
    await chat.ask("A question with a " + "long" * 60 + "word")
    await assert_fits(chat.page)
    await chat.page.get_by_role("button", name="Settings").click()
    await assert_fits(chat.page)
    await chat.page.keyboard.press("Escape")
    await chat.page.get_by_role("combobox", name="Model").select_option("crashing")
    await expect(chat.page.locator('[data-part="strip-story"]')).to_contain_text("exited with code 7")
    await assert_fits(chat.page)


@pytest.mark.parametrize("path", ["/docs", "/login", "/nothing-here", "/usage", "/requests", "/keys"])
async def test_the_other_pages_fit_320_pixels(stage: Site, watcher: Watcher, path: str) -> None:
    watcher.tolerate(r"status of 404")
    page = await watcher.open(stage.url + path, viewport=NARROW)
    await expect(page.locator("#main")).not_to_be_empty()
    await assert_fits(page)


async def test_the_colours_are_switched_and_remembered(stage: Site, watcher: Watcher) -> None:
    page = await watcher.open(stage.url, color_scheme="light")
    toggle = page.get_by_role("button", name="Colours:")

    async def background() -> str:
        return str(await page.evaluate("() => getComputedStyle(document.body).backgroundColor"))

    light = await background()
    await toggle.click()
    await expect(page.locator("html")).to_have_attribute("data-theme", "light")
    assert await background() == light
    await toggle.click()
    await expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    dark = await background()
    assert dark != light
    await page.goto(f"{stage.url}/chat")
    await expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    assert await background() == dark
    await toggle.click()
    await expect(page.locator("html")).to_have_attribute("data-theme", "auto")
    assert await background() == light
    await page.emulate_media(color_scheme="dark")
    assert await background() == dark


async def test_axe_finds_nothing_on_the_status_page(stage: Site, watcher: Watcher) -> None:
    page = await watcher.open(stage.url, bypass_csp=True, reduced_motion="reduce")
    await expect(page.locator('[data-part="connection"]')).to_have_attribute("data-connection", "live")
    for summary in await page.locator("summary:visible").all():
        await summary.click()
    await assert_accessible(page)


async def test_axe_finds_nothing_on_the_chat_page(stage: Site, watcher: Watcher) -> None:
    await stage.tell("ready", stream_text=WIDE_TEXT)
    chat = await ChatPage.open(watcher, stage.url, "ready", bypass_csp=True, reduced_motion="reduce")
    await chat.ask("a question")
    await stage.tell("ready", stream_fault="no_done")
    answer = await chat.send("another question")
    await expect(answer).to_have_attribute("data-status", "cut")
    await assert_accessible(chat.page)
    await chat.page.get_by_role("button", name="New chat").click()
    await chat.page.get_by_role("button", name="Settings").click()
    await assert_accessible(chat.page)


async def test_axe_finds_nothing_on_the_other_pages(stage: Site, watcher: Watcher) -> None:
    watcher.tolerate(r"status of 404")
    for path in ("/login", "/nothing-here"):
        page = await watcher.open(stage.url + path, bypass_csp=True)
        await assert_accessible(page)
