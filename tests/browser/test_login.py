"""A browser gets in with the server's key: the pages, the live connection and the chat; and with nothing else."""

import pytest
from playwright.async_api import expect

from tests.fixtures.chromium import Watcher
from tests.fixtures.site import Site

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

KEY = "the-key-of-this-test"


async def test_a_browser_logs_in_with_the_key(site: Site, watcher: Watcher) -> None:
    await site.start({"one": site.stand_in(autostart=False)}, server={"api_key": KEY})
    # The browser itself reports the refusal of the wrong key.
    watcher.tolerate(r"status of 401")
    page = await watcher.open(f"{site.url}/chat?model=one")
    await expect(page).to_have_title("Log in · Llamavisor")
    await page.get_by_label("Key").fill("not the key")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("alert")).to_have_text("This is not the key.")
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
