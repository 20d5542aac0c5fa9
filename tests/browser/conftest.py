"""Fixtures for tests in a real browser, against a real server with real engines behind it."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from tests.fixtures.chromium import Watcher, chromium, chromium_path
from tests.fixtures.site import Site

EXPECT_MILLISECONDS = 30_000
TEST_SECONDS = 180
# How the stand-in `ready` of the stage is found by each test, whatever the one before has made of it.
PLAIN = {
    "stream_text": "",
    "stream_fault": "",
    "fault_after": 3,
    "token_interval_seconds": 0,
    "token_count": 8,
    "chat_status": 200,
}
expect.set_options(timeout=EXPECT_MILLISECONDS)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A browser, a server and engines take their time to start when two workers do it at once."""
    for item in items:
        if item.get_closest_marker("browser"):
            item.add_marker(pytest.mark.timeout(TEST_SECONDS))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """One browser for all tests of a worker; each test has contexts of its own."""
    if chromium_path() is None:
        pytest.skip("no Chromium or Chrome on this machine")
    async with chromium() as browser:
        yield browser


@pytest_asyncio.fixture(loop_scope="session")
async def watcher(browser: Browser) -> AsyncIterator[Watcher]:
    """Opens pages, and fails the test when one of them does what no page of ours may do."""
    watcher = Watcher(browser)
    yield watcher
    faults = await watcher.close()
    assert not faults, faults


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def demo(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    """The server as a newcomer has it: the embedded engine with the demo model. Shared; leave it ready."""
    site = Site(tmp_path_factory.mktemp("demo"))
    await site.start()
    yield site
    await site.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def theatre(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    """The server behind `stage`."""
    site = Site(tmp_path_factory.mktemp("stage"))
    slowly = {"retry_base_seconds": 30, "retry_cap_seconds": 900, "stop_grace_seconds": 1}
    await site.start(
        {
            "ready": site.stand_in(),
            "idle": site.stand_in(autostart=False),
            "loading": site.stand_in(knobs={"load_seconds": 300, "load_by_reading": True}),
            "crashing": site.stand_in(
                supervision=slowly, knobs={"stderr_text": "the engine says why", "exit_at_once": True, "exit_code": 7}
            ),
            "broken": {"engine": {"kind": "llama-server", "binary": "/nowhere/llama-server"}, "model": str(site.model)},
            "stubborn": site.stand_in(
                autostart=False, supervision={"stop_grace_seconds": 300}, knobs={"ignore_term": True}
            ),
        }
    )
    for name, state in {"ready": "ready", "crashing": "crashed", "broken": "error"}.items():
        await site.reach(name, state)
    yield site
    await site.close()


@pytest_asyncio.fixture(loop_scope="session")
async def stage(theatre: Site) -> Site:
    """A server with an instance in each state that lasts. Shared: only the knobs of `ready` may be turned."""
    await theatre.tell("ready", **PLAIN)
    return theatre


@pytest_asyncio.fixture(loop_scope="session")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    """A server of one's own, not started yet."""
    site = Site(tmp_path_factory.mktemp("site"))
    yield site
    await site.close()
