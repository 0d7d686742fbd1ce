"""Fixtures that every level of the test pyramid shares."""

import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# What an example takes is the machine's business: no test asserts on time.
settings.register_profile("sandtrail", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("sandtrail")

# What a shell runs in the background ignores it, and so would whatever the tests start. Source:
# POSIX, Shell Command Language, "Signals and Error Handling".
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _state_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What commands remember of logs is not left in the home of whoever runs the tests."""
    before = os.environ.get("XDG_STATE_HOME")
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state-home"))
    yield
    del os.environ["XDG_STATE_HOME"]
    if before is not None:
        os.environ["XDG_STATE_HOME"] = before


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Run async tests on asyncio: aiosqlite has no other backend."""
    return "asyncio"
