"""What the documents promise, they promise with a test: each test that they name exists."""

import ast
import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
DOCUMENTS = ("docs/security.md", "docs/reliability.md", "docs/gvisor-scenarios.md")
NAMED = re.compile(r"\b(tests/[\w/.]+?\.py)(?:::(test_\w+))?")


def names_in(path: Path) -> set[str]:
    """Every test function of a module, also of its classes."""
    tree = ast.parse(path.read_text())
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {each.name for each in ast.walk(tree) if isinstance(each, functions)}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_test_that_is_named_exists(document: str) -> None:
    named = NAMED.findall((REPOSITORY / document).read_text())
    assert len(named) > 10
    missing = [
        f"{path}::{test}"
        for path, test in named
        if not (REPOSITORY / path).is_file() or (test and test not in names_in(REPOSITORY / path))
    ]
    assert missing == []


def test_every_threat_has_a_test() -> None:
    rows = [
        line
        for line in (REPOSITORY / "docs/security.md").read_text().splitlines()
        if line.startswith("| ") and not line.startswith(("| attempt |", "| place |"))
    ]
    assert len(rows) > 50
    assert [row for row in rows if "::test_" not in row] == []
