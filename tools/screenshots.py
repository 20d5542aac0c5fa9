"""Takes pictures of every page in every state, to be looked at; and the two of the README.

    python -m tools.screenshots FOLDER          the whole set: PAGE-STATE-WIDTH-SCHEME.png
    python -m tools.screenshots --readme        docs/images/status.png and docs/images/chat.png
    python -m tools.screenshots FOLDER chat     only one scene of the set: status, several, chat, accounts, others, sessions

A real server runs for it, on a temporary folder and a free port; what no real engine does on request, the tests' misbehaving server does.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sqlite3
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from playwright.async_api import Browser, Page, expect

from tests.fixtures.chat_page import ChatPage
from tests.fixtures.chromium import Watcher, chromium
from tests.fixtures.kept_books import keep, weeks_of_use
from tests.fixtures.site import DEMO, Site

ROOT = Path(__file__).resolve().parent.parent
README_FOLDER = ROOT / "docs" / "images"
CHART_QUESTIONS = 12
# At the pace of a reader, so that the charts are not one peak.
CHART_PAUSE_MILLISECONDS = 3_000
README_SIZE = {"width": 1440, "height": 900}
SIZES: Mapping[int, dict[str, int]] = {1440: {"width": 1440, "height": 900}, 375: {"width": 375, "height": 812}}
PATIENCE_MILLISECONDS = 30_000
SCHEMES = ("light", "dark")
PAGES = ("keys", "usage", "requests")
KEY = "a-key-for-the-picture"
LOADING = {"load_seconds": 60, "load_by_reading": True}
SLOWLY = {"retry_base_seconds": 20, "stop_grace_seconds": 300}
FAILED = {
    "stderr_text": (
        "load_model: loading model 'model.gguf'\nllama_model_load: error loading model: invalid magic 'GGML'\n"
        "srv: exiting due to model loading error"
    ),
    "exit_at_once": True,
    "exit_code": 1,
}
QUESTIONS = ("How do I restart a server?", "Make a table of animals.", "Tell me a short story.")
MARKDOWN = """Here is what each state means:

| state | meaning | what you can do |
| --- | --- | --- |
| `ready` | it answers | chat |
| `crashed` | it ended unasked | wait, or **start** it now |

1. Open the *status* page.
2. Press **Restart**.

> A restart takes about as long as the first start.

```python
from openai import OpenAI

client = OpenAI(base_url="http://127.0.0.1:3000/v1", api_key="none")
print(client.models.list())
```

More in [the documentation](https://example.org/docs), under `llamavisor restart`.
"""
Scene = Callable[["Studio"], Awaitable[None]]


class Studio:
    """A server, a browser, and the folder that the pictures go to."""

    def __init__(self, site: Site, browser: Browser, folder: Path) -> None:
        self.site = site
        self.cookies: list[dict[str, Any]] = []
        self._browser = browser
        self._folder = folder

    async def shoot(self, name: str, path: str, prepare: Callable[[Page], Awaitable[None]] | None = None) -> None:
        """The page at `path` in every width and scheme, after `prepare` has brought it to its state."""
        for width, viewport in SIZES.items():
            for scheme in SCHEMES:
                async with self.page(path, viewport=viewport, color_scheme=scheme) as page:
                    if prepare is not None:
                        await prepare(page)
                    await self.take(page, f"{name}-{width}-{scheme}")

    @asynccontextmanager
    async def page(self, path: str, **options: Any) -> AsyncIterator[Page]:
        """A page that is live."""
        watcher = Watcher(self._browser)
        page = await watcher.open(self.site.url + path, storage_state={"cookies": self.cookies}, **options)
        if await page.locator('[data-part="connection"]').count():
            await expect(page.locator('[data-part="connection"]')).to_have_attribute("data-connection", "live")
        yield page
        await watcher.close()

    async def take(self, page: Page, name: str) -> None:
        """One picture, as tall as the page."""
        await page.screenshot(path=self._folder / f"{name}.png", full_page=True)
        print(f"{name}.png", flush=True)


async def status(studio: Studio) -> None:
    """The status page, state by state, of one instance; then of several, and of none."""
    site = studio.site
    await site.reconfigure(DEMO)
    await site.reach("demo", "ready")
    await ask(studio, "demo")
    await studio.shoot("status-ready", "/")
    await kill(site, "demo")
    await site.reconfigure({"model": site.stand_in(knobs=LOADING)})
    await site.reach("model", "starting")
    await studio.shoot("status-starting", "/", progressing)
    await site.reconfigure(
        {"demo": site.stand_in(supervision=SLOWLY, knobs={"exit_after_ready_seconds": 1, "signal": 9})}
    )
    await site.reach("demo", "crashed")
    await studio.shoot("status-crashed", "/")
    await site.reconfigure({"demo": site.stand_in(knobs=FAILED)})
    await site.reach("demo", "error")
    await studio.shoot("status-error", "/")
    await site.reconfigure({"demo": site.stand_in(supervision=SLOWLY, knobs={"ignore_term": True})})
    await site.reach("demo", "ready")
    await site.post("/admin/instances/demo/stop")
    await studio.shoot("status-stopping", "/")
    await kill(site, "demo")
    # What was stopped stays so when its settings change; the next scene wants it anew.
    await site.reconfigure({})


async def several(studio: Studio) -> None:
    """Instances in different states beside each other, one that nobody has started, and none at all."""
    site = studio.site
    await site.reconfigure(
        {
            **DEMO,
            "llama-3.1-8b": site.stand_in(knobs={**LOADING, "load_seconds": 300}),
            "embeddings": site.stand_in(autostart=False),
            "vision": {
                "engine": {"kind": "llama-server", "binary": "/opt/llama.cpp/llama-server"},
                "model": str(site.model),
            },
        }
    )
    await site.reach("demo", "ready")
    await site.reach("vision", "error")
    await studio.shoot("status-several", "/")
    await site.reconfigure(DEMO)
    await site.post("/admin/instances/demo/stop")
    await site.reach("demo", "initial")
    await studio.shoot("status-initial", "/")
    await site.reconfigure({})
    await studio.shoot("status-none", "/")


async def chat(studio: Studio) -> None:
    """The chat page."""
    site = studio.site
    await site.reconfigure({"demo": site.stand_in()})
    await site.tell("demo", stream_text=MARKDOWN, token_interval_seconds=0.002)
    await studio.shoot("chat-welcome", "/chat")
    await studio.shoot("chat-answered", "/chat", conversation)
    await studio.shoot("chat-drawer", "/chat", drawer)
    await site.tell("demo", stream_fault="no_done", fault_after=40)
    await studio.shoot("chat-cut", "/chat", asking("cut"))
    await site.post("/admin/instances/demo/stop")
    await site.reach("demo", "initial")
    await studio.shoot("chat-waiting", "/chat", asking("waiting"))


async def accounts(studio: Studio) -> None:
    """The pages on keys, usage and requests: with nothing in the books, in use, and with books that cannot be read."""
    site = studio.site
    await site.end(signal.SIGTERM)
    await site.start(DEMO, accounting={"prices": {"demo": {"input": "0.15", "output": "0.60"}}})
    await site.reach("demo", "ready")
    for name in PAGES:
        await studio.shoot(f"{name}-empty", f"/{name}")
    await furnish(site)
    await site.end(signal.SIGTERM)
    keep(site.server.data, weeks_of_use())
    await site.start_again()
    await site.reach("demo", "ready")
    for name in PAGES:
        await studio.shoot(name, f"/{name}")
    await studio.shoot("requests-receipt", "/requests", with_a_receipt)
    await under_way(studio)
    locker = sqlite3.connect(site.server.data / "llamavisor.db", isolation_level=None)
    locker.execute("BEGIN IMMEDIATE")
    await ask(studio, "slow")
    await studio.shoot("requests-broken", "/requests")
    locker.close()
    await studio.shoot("keys-new", "/keys", making_a_key)
    await studio.shoot("keys-made", "/keys", made_a_key)
    await studio.shoot("keys-change", "/keys", changing_a_key)


async def others(studio: Studio) -> None:
    """The pages that have one state only, and a status page whose server is gone."""
    await studio.shoot("docs", "/docs", described)
    await studio.shoot("error", "/nothing-here")
    site = studio.site
    # What was stopped by hand stays so until it is another one.
    await site.reconfigure({})
    await site.reconfigure(DEMO)
    await site.reach("demo", "ready")
    for width, viewport in SIZES.items():
        for scheme in SCHEMES:
            async with studio.page("/", viewport=viewport, color_scheme=scheme) as page:
                await site.end(signal.SIGKILL)
                await expect(page.locator('[data-part="connection-text"]')).to_have_text("Offline")
                await studio.take(page, f"status-offline-{width}-{scheme}")
            await site.start_again()
            await site.reach("demo", "ready")


async def sessions(studio: Studio) -> None:
    """The login, and the pages as somebody has them who may only read, and who may chat as well."""
    site = studio.site
    await site.end(signal.SIGTERM)
    await site.start(DEMO, server={"api_key": KEY})
    await studio.shoot("login", "/login")
    for name, scopes in {"reader": ["read"], "caller": ["read", "inference"]}.items():
        studio.cookies = [await session(site, {"label": "the screen in the hall", "scopes": scopes})]
        await studio.shoot(f"{name}-status", "/", running)
        await studio.shoot(f"{name}-chat", "/chat")
    await studio.shoot("reader-keys", "/keys")


async def session(site: Site, fields: dict[str, Any]) -> dict[str, Any]:
    """The cookie of a browser that has logged in with a new key."""
    headers = {"Authorization": f"Bearer {KEY}"}
    async with aiohttp.ClientSession(site.url) as http:
        async with http.post("/admin/keys", json=fields, headers=headers) as answer:
            key = (await answer.json())["key"]
        async with http.post("/login", data={"key": key}, allow_redirects=False) as answer:
            cookie = answer.cookies["llamavisor_session"]
    place = {"domain": "127.0.0.1", "path": "/", "expires": -1, "httpOnly": True, "secure": False, "sameSite": "Strict"}
    return {"name": cookie.key, "value": cookie.value, **place}


async def running(page: Page) -> None:
    """The instance is ready."""
    await expect(page.locator('[data-part="state"]')).to_have_text("ready")


async def readme(studio: Studio) -> None:
    """The two pictures of the README, with the real engine and the demo model."""
    site = studio.site
    await site.reconfigure(DEMO)
    await site.reach("demo", "ready")
    await kill(site, "demo")
    await site.reach("demo", "crashed")
    await site.reach("demo", "ready")
    options: dict[str, Any] = {"viewport": README_SIZE, "color_scheme": "light"}
    async with studio.page("/", **options) as status_page, studio.page("/chat?model=demo", **options) as page:
        talk = ChatPage(page)
        for question in QUESTIONS:
            await talk.ask(question)
        # So much traffic that the charts have something to show.
        async with studio.page("/chat?model=demo") as other:
            for number in range(CHART_QUESTIONS):
                await ChatPage(other).ask(QUESTIONS[number % len(QUESTIONS)])
                await other.get_by_role("button", name="New chat").click()
                await other.wait_for_timeout(CHART_PAUSE_MILLISECONDS)
        total = str(len(QUESTIONS) + CHART_QUESTIONS)
        await expect(status_page.locator('[data-metric="totalRequests"]')).to_have_text(total)
        for name, each in (("chat", page), ("status", status_page)):
            await each.screenshot(path=README_FOLDER / f"{name}.png")
            print(README_FOLDER / f"{name}.png", flush=True)


async def kill(site: Site, name: str) -> None:
    """End the process of an instance from outside."""
    os.kill((await site.status(name))["pid"], signal.SIGKILL)


async def ask(studio: Studio, model: str) -> None:
    """Some traffic, for the charts."""
    async with studio.page(f"/chat?model={model}") as page:
        for question in QUESTIONS:
            await ChatPage(page).ask(question)


async def progressing(page: Page) -> None:
    """Wait for a share of the load that can be seen."""
    await expect(page.locator("progress").first).to_have_attribute("value", re.compile(r"^0\.[1-9]"))


async def conversation(page: Page) -> None:
    """Two questions and their answers."""
    talk = ChatPage(page)
    await talk.ask("What do the states mean, and how do I restart a server?")
    await talk.ask("Thank you. And once more, please.")


async def drawer(page: Page) -> None:
    """The settings, one of them wrong."""
    await page.get_by_role("button", name="Settings").click()
    await page.get_by_role("spinbutton", name="Temperature").fill("0.4")
    await page.get_by_role("spinbutton", name="Top p").fill("7")


def asking(end: str) -> Callable[[Page], Awaitable[None]]:
    """One question, whose answer ends in a state other than done."""

    async def prepare(page: Page) -> None:
        answer = await ChatPage(page).send("Tell me what the states mean.")
        await expect(answer).to_have_attribute("data-status", end)

    return prepare


async def furnish(site: Site) -> None:
    """Projects, keys and budgets, one of which is used up."""
    for name in ("shop", "website", "search"):
        await site.send("POST", "/admin/projects", {"name": name, "limits": {"requests_per_minute": 600}})
    keys = [
        ("laptop", "default", ["inference"]),
        ("checkout", "shop", ["inference", "read"]),
        ("crawler", "search", ["inference"]),
    ]
    for label, project, scopes in keys:
        await site.send("POST", "/admin/keys", {"label": label, "project": project, "scopes": scopes})
    old = await site.send("POST", "/admin/keys", {"label": "the intern’s", "project": "website"})
    await site.send("DELETE", f"/admin/keys/{old['id']}")
    budgets = [
        ("shop", "month", "micros", 25_000_000),
        ("website", "day", "tokens", 2_000_000),
        ("search", "week", "tokens", 0),
    ]
    for project, period, unit, amount in budgets:
        await site.send("PUT", "/admin/budgets", {"project": project, "period": period, "unit": unit, "amount": amount})


async def under_way(studio: Studio) -> None:
    """Requests that wait, and others that are answered."""
    site = studio.site
    await site.reconfigure({"slow": site.stand_in(), "vision": site.stand_in(knobs={**LOADING, "load_seconds": 300})})
    await site.tell("slow", token_interval_seconds=2, token_count=1_000)
    asked = [("slow", True), ("slow", True), ("slow", False), ("vision", True)]
    clients = [asyncio.create_task(hold(site, model, stream=stream)) for model, stream in asked]
    for width, viewport in SIZES.items():
        for scheme in SCHEMES:
            async with studio.page("/requests", viewport=viewport, color_scheme=scheme) as page:
                await expect(page.locator("[data-request]")).to_have_count(len(asked))
                await studio.take(page, f"requests-under-way-{width}-{scheme}")
    for client in clients:
        client.cancel()
    await asyncio.wait(clients)
    await site.tell("slow", token_interval_seconds=0, token_count=8)


async def hold(site: Site, model: str, *, stream: bool) -> None:
    """Ask, and listen until cancelled."""
    body = {"model": model, "messages": [{"role": "user", "content": "hello"}], "stream": stream}
    async with aiohttp.ClientSession(site.url) as http, http.post("/v1/chat/completions", json=body) as answer:
        await answer.read()


async def with_a_receipt(page: Page) -> None:
    """The newest."""
    await page.locator("[data-receipt]").first.click()
    await expect(page.get_by_role("dialog")).to_be_visible()


async def making_a_key(page: Page) -> None:
    """The dialog."""
    await page.get_by_role("button", name="New key").click()
    await page.get_by_role("dialog").get_by_label("Label").fill("notebook")


async def made_a_key(page: Page) -> None:
    """What it shows at last."""
    await making_a_key(page)
    await page.get_by_role("button", name="Make the key").click()
    await expect(page.get_by_label("The new key")).to_be_visible()


async def changing_a_key(page: Page) -> None:
    """The dialog of one that is there."""
    await page.get_by_role("button", name="Change checkout").click()
    await expect(page.get_by_role("dialog")).to_be_visible()


async def described(page: Page) -> None:
    """Swagger UI has drawn the description."""
    await expect(page.locator(".opblock").first).to_be_visible()


async def main(arguments: list[str]) -> int:
    """The set or the two; the exit status."""
    is_readme = arguments[:1] == ["--readme"]
    if not arguments or (arguments[0].startswith("-") and not is_readme):
        print(__doc__)
        return 0 if arguments[:1] == ["--help"] else 2
    folder = README_FOLDER if is_readme else Path(arguments[0])
    folder.mkdir(parents=True, exist_ok=True)
    expect.set_options(timeout=PATIENCE_MILLISECONDS)
    scenes: dict[str, Scene] = {
        "status": status,
        "several": several,
        "chat": chat,
        "accounts": accounts,
        "others": others,
        "sessions": sessions,
    }
    wanted = [readme] if is_readme else [scene for name, scene in scenes.items() if name in (arguments[1:] or scenes)]
    with tempfile.TemporaryDirectory() as home:
        site = Site(Path(home))
        await site.start({})
        try:
            async with chromium() as browser:
                for scene in wanted:
                    await scene(Studio(site, browser, folder))
        finally:
            await site.close()
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))
