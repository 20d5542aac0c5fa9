"""The pages on keys, usage and requests: what they show, what can be done there, and that hostile names stay text."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from tests.browser.test_layout import NARROW, assert_accessible, assert_fits
from tests.fixtures.chromium import Watcher
from tests.fixtures.kept_books import keep, record
from tests.fixtures.site import Site
from web.page_filters import money

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

HOSTILE = "</script><img src=x onerror=window.pwned=1>"
PRICES = {"one": {"input": "1000", "output": "2000"}}
NOW_MS = int(time.time() * 1_000)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def books(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    """A server with prices, and hostile names in its books; the tests leave each other's projects alone."""
    site = Site(tmp_path_factory.mktemp("books"))
    await site.start({"one": site.stand_in()}, accounting={"prices": PRICES}, storage={"write_seconds": 0.01})
    await site.send("POST", "/admin/keys", {"label": HOSTILE})
    keep(
        site.server.data, [record(1, NOW_MS - 60_000, model=HOSTILE), record(2, NOW_MS - 50_000, outcome="engine_died")]
    )
    await site.reach("one", "ready")
    yield site
    await site.close()


async def assert_sound(page: Page) -> None:
    """It fits a narrow screen, nothing of what it shows has become markup, and axe-core finds nothing."""
    assert await page.evaluate("() => window.pwned === undefined && !document.querySelector('main img')")
    await page.set_viewport_size({"width": NARROW["width"], "height": NARROW["height"]})
    await assert_fits(page)
    await assert_accessible(page)


async def opens(site: Site, key: str) -> int:
    """The status with which a key is answered."""
    headers = {"Authorization": f"Bearer {key}"}
    async with aiohttp.ClientSession(site.url) as http, http.get("/v1/models", headers=headers) as answer:
        return answer.status


async def ask(site: Site, key: str) -> dict[str, int]:
    """A chat with that key; its usage."""
    body = {"model": "one", "messages": [{"role": "user", "content": "hello"}]}
    headers = {"Authorization": f"Bearer {key}"}
    async with (
        aiohttp.ClientSession(site.url) as http,
        http.post("/v1/chat/completions", json=body, headers=headers) as answer,
    ):
        assert answer.ok, await answer.text()
        return dict((await answer.json())["usage"])


async def refused(site: Site, key: str) -> str:
    """A chat that is refused; with which code."""
    body = {"model": "one", "messages": [{"role": "user", "content": "hello"}]}
    headers = {"Authorization": f"Bearer {key}"}
    async with (
        aiohttp.ClientSession(site.url) as http,
        http.post("/v1/chat/completions", json=body, headers=headers) as answer,
    ):
        return str((await answer.json())["error"]["code"])


async def test_a_key_is_made_shown_once_and_revoked(books: Site, watcher: Watcher) -> None:
    page = await watcher.open(f"{books.url}/keys")
    await page.get_by_role("button", name="New key").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_label("Label").fill("from the page")
    await dialog.get_by_label("Expires").select_option("in 30 days")
    await page.get_by_role("button", name="Make the key").click()
    shown = page.get_by_label("The new key")
    await expect(shown).to_be_focused()
    key = await shown.input_value()
    # Its beginning is in sight, and nobody loses the only sight of it by a slip of the finger.
    sight = await shown.evaluate("field => [field.scrollWidth > field.clientWidth, field.scrollLeft]")
    assert sight == [True, 0]
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("alert")).to_contain_text("cannot be shown again")
    await expect(shown).to_have_value(key)
    assert await opens(books, key) == 200
    await page.get_by_role("button", name="Done").click()
    assert key not in await page.content()
    row = page.get_by_role("row", name="from the page")
    await expect(row).to_contain_text("inference")
    await expect(page.get_by_role("region", name="Valid keys")).to_contain_text(HOSTILE)
    await row.get_by_role("button", name="Revoke").click()
    await page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    assert await opens(books, key) == 200
    await row.get_by_role("button", name="Revoke").click()
    await page.get_by_role("dialog").get_by_role("button", name="Yes").click()
    await expect(page.get_by_role("region", name="Valid keys")).not_to_contain_text("from the page")
    assert await opens(books, key) == 401
    await page.locator("summary").first.click()
    await expect(page.get_by_role("region", name="Keys that have ended")).to_contain_text("from the page")
    await assert_sound(page)


async def test_a_key_is_changed(books: Site, watcher: Watcher) -> None:
    limits = {"requests_per_minute": 60, "concurrency": 4}
    key = await books.send("POST", "/admin/keys", {"label": f"{HOSTILE}'s", "limits": limits})
    page = await watcher.open(f"{books.url}/keys")
    change = page.get_by_role("button", name=f"Change {HOSTILE}'s")
    await change.click()
    dialog = page.get_by_role("dialog")
    await expect(dialog.get_by_role("heading")).to_have_text(f"Change {HOSTILE}'s")
    await expect(dialog.get_by_label("Label")).to_have_value(f"{HOSTILE}'s")
    await expect(dialog.get_by_label("Expires")).to_have_value("keep")
    await expect(dialog.get_by_label("Expires")).to_contain_text("as it is: never")
    await expect(dialog.get_by_label("Requests a minute")).to_have_value("60")
    await assert_accessible(page)
    # What is changed elsewhere meanwhile, and not here, stays so.
    await books.send("PATCH", f"/admin/keys/{key['id']}", {"limits": {"tokens_per_minute": 900}})
    await dialog.get_by_label("At a time").fill("")
    await dialog.get_by_label("Expires").select_option("in 30 days")
    await dialog.get_by_role("button", name="Change the key").click()
    await expect(dialog).to_have_count(0)
    (told,) = [one for one in (await books.get("/admin/keys"))["keys"] if one["id"] == key["id"]]
    assert told["limits"] == {"requests_per_minute": 60, "tokens_per_minute": 900, "concurrency": None}
    assert told["expires_at"] is not None
    await expect(change).to_be_focused()
    await change.click()
    await dialog.get_by_label("Label").fill("from then on")
    await dialog.get_by_role("button", name="Change the key").click()
    row = page.get_by_role("row", name="from then on")
    await expect(row).to_contain_text("60 requests/min, 900 tokens/min")
    after = next(one for one in (await books.get("/admin/keys"))["keys"] if one["id"] == key["id"])
    assert after == {**told, "label": "from then on"}
    await assert_sound(page)


async def test_a_project_and_its_budget(books: Site, watcher: Watcher) -> None:
    # The browser itself reports what is refused.
    watcher.tolerate(r"status of 40[09]")
    page = await watcher.open(f"{books.url}/keys")
    await page.get_by_role("button", name="New project").click()
    await page.get_by_label("Name").fill("My Shop")
    await page.get_by_role("button", name="Add the project").click()
    await expect(page.get_by_role("alert")).to_contain_text("small letters")
    await expect(page.get_by_label("Name")).to_have_attribute("aria-invalid", "true")
    await page.get_by_label("Name").fill("default")
    await page.get_by_role("button", name="Add the project").click()
    await expect(page.get_by_role("alert")).to_contain_text("default")
    await page.get_by_label("Name").fill("paper")
    await page.get_by_role("button", name="Add the project").click()
    await expect(page.get_by_role("row", name="paper")).to_be_visible()
    await page.get_by_role("button", name="Limits of paper").click()
    limit = page.get_by_label("At a time").and_(page.locator("#limits-concurrency"))
    # As a person types: a field of the type `number` would drop the comma and make fifteen of it.
    await limit.press_sequentially("1,5")
    await page.get_by_role("button", name="Set the limits").click()
    await expect(page.get_by_role("alert")).to_contain_text("whole number")
    await limit.fill("3")
    await page.get_by_role("button", name="Set the limits").click()
    await expect(page.get_by_role("row", name="paper")).to_contain_text("3 at a time")
    await page.get_by_role("button", name="Set a budget").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_label("Project").select_option("paper")
    await dialog.get_by_label("Of", exact=True).select_option("USD")
    for no_amount in ("much", "1,5", ""):
        await dialog.get_by_label("At most").fill(no_amount)
        await dialog.get_by_role("button", name="Set the budget").click()
        await expect(dialog.get_by_role("alert")).to_contain_text("amount")
        await expect(dialog.get_by_label("At most")).to_have_attribute("aria-invalid", "true")
    await dialog.get_by_label("At most").fill("12.50")
    await dialog.get_by_role("button", name="Set the budget").click()
    budget = page.get_by_role("listitem").filter(has_text="paper")
    await expect(budget).to_contain_text("12.50 USD left of 12.50 USD a month")
    told: dict[str, Any] = await books.get("/admin/budgets")
    assert [(each["project"], each["amount"]) for each in told["budgets"]] == [("paper", 12_500_000)]
    await budget.get_by_role("button", name="Remove").click()
    await page.get_by_role("dialog").get_by_role("button", name="Yes").click()
    await expect(budget).to_have_count(0)


async def test_a_budget_of_one_key(books: Site, watcher: Watcher) -> None:
    await books.send("POST", "/admin/projects", {"name": "inks"})
    await books.send("POST", "/admin/keys", {"label": "another project's"})
    key = await books.send("POST", "/admin/keys", {"project": "inks", "label": "printer"})
    page = await watcher.open(f"{books.url}/keys")
    await page.get_by_role("button", name="Set a budget").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_label("Project").select_option("inks")
    choice = dialog.get_by_label("Only for the key")
    assert await choice.locator("option:not([hidden])").all_text_contents() == [
        "the whole project",
        f"printer ({key['id']})",
    ]
    await choice.select_option(key["id"])
    await dialog.get_by_label("At most").fill("1500")
    await dialog.get_by_role("button", name="Set the budget").click()
    await expect(page.get_by_role("listitem").filter(has_text="inks")).to_contain_text(f"only the key {key['id']}")
    told: dict[str, Any] = await books.get("/admin/budgets")
    assert [(one["key_id"], one["amount"]) for one in told["budgets"] if one["project"] == "inks"] == [
        (key["id"], 1500)
    ]


async def test_usage_is_told_by_model_and_project(books: Site, watcher: Watcher) -> None:
    await books.send("POST", "/admin/projects", {"name": "press"})
    key = await books.send("POST", "/admin/keys", {"project": "press", "label": HOSTILE})
    await books.send(
        "PUT", "/admin/budgets", {"project": "press", "period": "day", "unit": "tokens", "amount": 1_000_000}
    )
    used = [await ask(books, key["key"]) for _ in range(2)]
    page = await watcher.open(f"{books.url}/usage")
    await expect(page.get_by_role("region", name="By model", exact=True)).to_contain_text(HOSTILE)
    await page.get_by_label("Of", exact=True).select_option("press")
    await expect(page).to_have_url(re.compile("project=press"))
    figures = page.locator(".figures")
    prompt, completion = (sum(each[name] for each in used) for name in ("prompt_tokens", "completion_tokens"))
    await expect(figures).to_contain_text(f"Prompt tokens{prompt}")
    await expect(figures).to_contain_text(money(prompt * 1_000 + completion * 2_000, "USD"))
    await expect(page.get_by_role("region", name="By model", exact=True)).to_contain_text("100 %")
    left = f"{1_000_000 - prompt - completion:,} tokens left of 1,000,000 tokens a day"
    await expect(page.get_by_role("listitem").filter(has_text="press")).to_contain_text(left)
    await page.get_by_label("By", exact=True).select_option("key")
    await expect(page.get_by_role("region", name="By key", exact=True)).to_contain_text(f"{HOSTILE} ({key['id']})")
    await page.locator('[data-part="chart"] .u-over').hover()
    await expect(page.locator('[data-part="readout"]')).to_contain_text("UTC")
    async with page.expect_download() as download:
        await page.get_by_role("link", name="CSV").click()
    assert (await (await download.value).path()).read_text().count(key["id"]) == 2
    await assert_sound(page)


async def test_usage_without_javascript(books: Site, watcher: Watcher) -> None:
    page = await watcher.open(
        f"{books.url}/usage?by=project&project=nobody&stretch=for+ever", java_script_enabled=False
    )
    await expect(page.locator("main")).to_contain_text("Nothing was used in the last 30 days by nobody.")
    await page.get_by_label("Of", exact=True).select_option("all projects")
    await page.get_by_role("button", name="Show").click()
    await expect(page.get_by_role("region", name="By project", exact=True)).to_contain_text("default")


async def test_a_request_on_its_way_is_seen_and_cancelled(books: Site, watcher: Watcher) -> None:
    await books.tell("one", token_interval_seconds=60, token_count=8)
    page = await watcher.open(f"{books.url}/requests")
    await expect(page.locator("[data-live=in-flight]")).to_contain_text("No request is on its way.")
    key = await books.send("POST", "/admin/keys", {"label": HOSTILE})
    client = asyncio.create_task(refused(books, key["key"]))
    under_way = page.get_by_role("region", name="Requests on their way")
    await expect(under_way).to_contain_text("at the engine")
    await expect(under_way).to_contain_text(HOSTILE)
    cancel = page.get_by_role("button", name="Cancel the request for one")
    await cancel.click()
    await page.get_by_role("dialog").get_by_role("button", name="Let it go on").click()
    await expect(under_way).to_be_visible()
    await cancel.click()
    await page.get_by_role("dialog").get_by_role("button", name="Cancel the request").click()
    assert await client == "cancelled"
    await expect(under_way).to_have_count(0)
    first = page.get_by_role("region", name="Requests that were served").locator("tbody tr").first
    await expect(first).to_contain_text("cancelled")
    await first.get_by_role("link").click()
    await expect(page.get_by_role("dialog").locator("[data-part=receipt]")).to_contain_text(key["id"])
    await assert_sound(page)
    await page.get_by_role("link", name="On a page of its own").click()
    await expect(page.locator("[data-part=receipt]")).to_contain_text(HOSTILE)
    await assert_sound(page)


async def test_served_requests_are_found(books: Site, watcher: Watcher) -> None:
    await books.send("POST", "/admin/projects", {"name": "unused"})
    page = await watcher.open(f"{books.url}/requests")
    served = page.get_by_role("region", name="Requests that were served")
    await expect(served).to_contain_text(HOSTILE)
    await expect(served.locator("time").first).to_have_text(re.compile(r"\d\d:\d\d:\d\d$"))
    await page.set_viewport_size({"width": NARROW["width"], "height": NARROW["height"]})
    await expect(served.get_by_text("150 tokens, 0.0009 USD").first).to_be_visible()
    await page.get_by_label("Outcome").select_option("engine_died")
    await expect(served.locator("tbody tr")).to_have_count(1)
    await expect(page).to_have_url(re.compile("outcome=engine_died"))
    await page.goto(f"{books.url}/requests?model={quote(HOSTILE)}")
    await expect(page.get_by_label("Model")).to_have_value(HOSTILE)
    await expect(served.locator("tbody tr")).to_have_count(1)
    await assert_sound(page)
    await page.get_by_label("Project").select_option("unused")
    await expect(page.locator("main")).to_contain_text("There is no such request.")
    watcher.tolerate("ERR_FAILED")
    await page.route("**/requests/in-flight", lambda route: route.abort())
    await expect(page.locator("[data-part=live]")).to_contain_text("Not live: as it was at")
    await page.unroute_all()
    await expect(page.locator("[data-part=live]")).to_have_text("Live")
