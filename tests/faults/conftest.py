"""Fixtures for the fault matrix."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tests.fixtures.house import House


@pytest_asyncio.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    """A supervisor over real processes; the oracle runs after the test, and nothing of it may be left."""
    house = House(tmp_path)
    yield house
    await house.oracle()
    await house.close()
