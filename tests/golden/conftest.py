"""Golden files: compared by default, written with ``pytest tests/golden --update-golden``."""

from collections.abc import Callable
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
OPTION = "--update-golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(OPTION, action="store_true", help="write golden files instead of comparing")


@pytest.fixture
def golden(pytestconfig: pytest.Config) -> Callable[[str, str], None]:
    """Compare a text with a file of the repository, or write it there."""

    def check(path: str, text: str) -> None:
        file = REPOSITORY / path
        if pytestconfig.getoption(OPTION, default=False):
            file.write_text(text)
        found = file.read_text() if file.exists() else ""
        assert found == text, f"{path} is out of date: run pytest tests/golden {OPTION}"

    return check
