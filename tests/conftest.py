"""Fixtures that every level of the test pyramid shares."""

import pytest


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Run async tests on asyncio: aiosqlite has no other backend."""
    return "asyncio"
