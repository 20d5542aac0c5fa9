"""A browser gets in with a key: the pages, the live connection and the chat, as far as that key goes and as long as it is valid."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest
from playwright.async_api import Page, expect

from tests.browser.test_layout import NARROW, assert_accessible, assert_fits
from tests.fixtures.chat_page import ChatPage
from tests.fixtures.chromium import Watcher
from tests.fixtures.site import Site

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

KEY = "the-key-of-this-test"
LABEL = "the wall’s, with more words than any head of a page has room for"
# The narrowest, and where the head of the pages has just become one row, and just got all its words.
WIDTHS = (NARROW["width"], 821, 1161)


async def administer(site: Site, method: str, path: str, body: object = None) -> dict[str, Any]:
    """What the API answers to the server's own key; it must succeed."""
    headers = {"Authorization": f"Bearer {KEY}"}
    async with (
        aiohttp.ClientSession(site.url, headers=headers) as http,
        http.request(method, path, json=body) as answer,
    ):
        assert answer.ok, await answer.text()
        return dict(await answer.json())


async def logged_in(site: Site, watcher: Watcher, *scopes: str, **options: Any) -> tuple[Page, dict[str, Any]]:
    """The status page after a login with a new key of these scopes; and that key."""
    await site.start({"one": site.stand_in(autostart=False)}, server={"api_key": KEY})
    key = await administer(site, "POST", "/admin/keys", {"label": LABEL, "scopes": scopes})
    page = await watcher.open(site.url, **options)
    await page.get_by_label("Key").fill(key["key"])
    await page.keyboard.press("Enter")
    await expect(page.locator('[data-part="connection"]')).to_have_attribute("data-connection", "live")
    await expect(page.locator(".who")).to_have_text(f"Logged in as {LABEL}")
    return page, key


async def test_a_browser_logs_in_with_the_key(site: Site, watcher: Watcher) -> None:
    await site.start({"one": site.stand_in(autostart=False)}, server={"api_key": KEY})
    # The browser itself reports the refusal of the wrong key.
    watcher.tolerate(r"status of 401")
    page = await watcher.open(f"{site.url}/chat?model=one")
    await expect(page).to_have_title("Log in · Llamavisor")
    await page.get_by_label("Key").fill("not the key")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("alert")).to_have_text("Invalid or revoked API key.")
    await page.get_by_label("Key").fill(KEY)
    await page.keyboard.press("Enter")
    await expect(page).to_have_url(f"{site.url}/chat?model=one")
    await page.goto(site.url)
    await expect(page.locator('[data-part="state"]')).to_have_text("initial")
    await page.locator('[data-action="start"]').click()
    await expect(page.locator('[data-part="state"]')).to_have_text("ready")
    await page.get_by_role("button", name="Log out").click()
    await expect(page).to_have_title("Log in · Llamavisor")
    await page.goto(site.url)
    await expect(page).to_have_title("Log in · Llamavisor")


async def test_who_may_read_watches_until_the_key_ends(site: Site, watcher: Watcher) -> None:
    # The browser itself reports how its streams are refused.
    watcher.tolerate(r"status of 401", r"ERR_INCOMPLETE_CHUNKED_ENCODING")
    page, key = await logged_in(site, watcher, "read", bypass_csp=True)
    await administer(site, "POST", "/admin/instances/one/start", {})
    await expect(page.locator('[data-part="state"]')).to_have_text("ready")
    await expect(page.get_by_role("group", name="Actions")).to_have_count(0)
    for width in WIDTHS:
        await page.set_viewport_size({"width": width, "height": NARROW["height"]})
        # The charts take some frames to follow.
        await page.reload()
        await expect(page.locator('[data-part="connection"]')).to_have_attribute("data-connection", "live")
        await assert_fits(page)
        assert await page.locator(".site-head").evaluate("head => head.scrollHeight <= head.clientHeight")
        assert await page.get_by_text(LABEL).evaluate("words => words.clientWidth > 80")
    await page.goto(f"{site.url}/chat")
    await expect(page.get_by_role("heading", name="This key cannot chat")).to_be_visible()
    await expect(page.get_by_role("textbox")).to_have_count(0)
    await assert_accessible(page)
    await page.goto(site.url)
    await expect(page.locator('[data-part="connection"]')).to_have_attribute("data-connection", "live")
    await administer(site, "DELETE", f"/admin/keys/{key['id']}")
    await administer(site, "POST", "/admin/instances/one/stop", {})
    await expect(page).to_have_title("Log in · Llamavisor")


async def test_an_administrator_starts_chats_and_goes(site: Site, watcher: Watcher) -> None:
    page, _ = await logged_in(site, watcher, "admin")
    await page.get_by_role("button", name="Start", exact=True).click()
    await expect(page.locator('[data-part="state"]')).to_have_text("ready")
    await page.get_by_role("link", name="Chat", exact=True).first.click()
    await ChatPage(page).ask("hello")
    await page.goto(f"{site.url}/keys")
    await expect(page.get_by_role("button", name="New key")).to_be_visible()
    await page.get_by_role("button", name="Log out").click()
    await expect(page).to_have_title("Log in · Llamavisor")
    assert await page.context.cookies() == []
