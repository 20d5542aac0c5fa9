"""Fixtures for tests with real processes."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tests.fixtures.nursery import Nursery
from tests.fixtures.webhouse import WebHouse


@pytest_asyncio.fixture
async def nursery(tmp_path: Path) -> AsyncIterator[Nursery]:
    """Spawns real children and leaves none behind."""
    nursery = Nursery(tmp_path)
    yield nursery
    await nursery.close()


@pytest_asyncio.fixture
async def web_house(tmp_path: Path) -> AsyncIterator[WebHouse]:
    """A supervisor with its web server; call `serve`. Nothing of it may be left afterwards."""
    house = WebHouse(tmp_path)
    yield house
    await house.oracle()
    await house.close()
