"""Fixtures for tests with real processes."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tests.fixtures.nursery import Nursery


@pytest_asyncio.fixture
async def nursery(tmp_path: Path) -> AsyncIterator[Nursery]:
    """Spawns real children and leaves none behind."""
    nursery = Nursery(tmp_path)
    yield nursery
    await nursery.close()
