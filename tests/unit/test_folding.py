"""Sentences as wide as a terminal."""

from manager.terminal.folding import folded, hanging
from replay.cli.log_table import narrow_lines


def test_what_follows_the_first_part_hangs() -> None:
    assert hanging("tree  PASS  the roots of all", 20, 6) == "tree  PASS  the\n      roots of all"


def test_a_word_is_never_broken() -> None:
    assert hanging("signed by sandtrail/63ebe80c-407c", 12) == "signed by\nsandtrail/63ebe80c-407c"


def test_where_no_person_looks_a_line_stays_one() -> None:
    assert folded("word " * 100) == "word " * 100


def test_a_long_name_makes_no_other_line_wide() -> None:
    def row(position: str, container: str) -> tuple[str, ...]:
        return (position, "12:00:00.000", "web", container, "container.exited", "ok", "-", "-", "")

    lines = list(narrow_lines([row("1", "a"), row("2", "b" * 128), row("3", "c")], 80))
    assert [len(line) <= 80 for line in lines] == [True, False, True]
    assert "b" * 128 in lines[1]
    assert lines[0].index("container.exited") == lines[2].index("container.exited")
