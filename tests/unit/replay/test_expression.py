"""The language of questions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay.expression import (
    EXPRESSION_CHARS_MAX,
    NESTING_MAX,
    ExpressionError,
    Grouped,
    parse_expression,
)

STATE = {
    "phase": "started",
    "paused": False,
    "none": None,
    "number": 3,
    "type": "container.exited",
    "files": ["a", "b"],
    "containers": {
        "web": {"status": "running", "exit": None, "pid": 7},
        "a.b": {"status": "failed", "exit": {"code": 3}, "pid": 9},
    },
}


@pytest.mark.parametrize(
    "text",
    [
        "phase == started",
        'phase == "started"',
        "phase == 'started'",
        "phase != stopped",
        "phase in [stopped, started]",
        "phase in started",
        "not paused",
        "!paused",
        "paused == false",
        "none == null",
        "nowhere == null",
        "nowhere.deeper == null",
        "not nowhere",
        "number == 3",
        "number > 2 and number < 4 && number >= 3 && number <= 3",
        "number < 3.5",
        "phase > apple",
        "containers.web.status == running",
        'containers["a.b"].exit.code == 3',
        "containers.a.b.exit.code == 3",
        "containers[web].pid == 7",
        "files[1] == b",
        "files.0 == a",
        "files[9] == null",
        "type == container.exited",
        'count(status == "failed") == 1',
        "count(pid > 0) == 2",
        "any(status == running) and not all(status == running)",
        "all(pid > 5)",
        "len(containers) == 2",
        "len(files) == 2 || nowhere",
        "len(number) == 0",
        'phase =~ "^st.r"',
        "(paused or number) and (phase)",
        "paused or number == 3 and phase == started",
        "containers",
        'phase != "a\\"b"',
    ],
)
def test_what_is_so(text: str) -> None:
    assert parse_expression(text)(STATE) is True
    assert parse_expression(f"not ({text})")(STATE) is False


@pytest.mark.parametrize(
    "text",
    [
        "phase == stopped",
        "number == true",
        "paused == 0",
        "number > text",
        "nowhere > 1",
        "nowhere < 1",
        "none",
        "paused",
        "number =~ 3",
        "phase =~ '^tar'",
        "phase in []",
        "count(status == gone) > 0",
        "number and (paused or nowhere)",
    ],
)
def test_what_is_not_so(text: str) -> None:
    assert parse_expression(text)(STATE) is False


def test_groups_are_looked_at_again_only_if_they_changed() -> None:
    first, second = [{"x": 1}, {"x": 2}], [{"x": 1}]
    check = parse_expression("count(x == 1) == 2 and any(x == 2) and not all(x == 1)")
    assert check({"containers": Grouped([first, second])}) is True
    first[1]["x"] = 3  # which nobody may do, and nobody sees
    assert check({"containers": Grouped([first, second])}) is True
    assert check({"containers": Grouped([list(first), second])}) is False
    assert parse_expression("len(containers) == 3 and containers[2].x == 1")(
        {"containers": Grouped([first, second])}
    )


def test_nothing_has_no_containers() -> None:
    assert parse_expression("count(status) == 0 and all(status)")({}) is True
    assert parse_expression("count(x == 1) == 1")({"containers": [{"x": 1}, {"x": 2}]}) is True


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("phase == nothing", []),
        ("none == 3", []),
        ("phse == started", ["'phse'"]),
        ("count(stat == running) > 0", ["'stat'"]),
        ("phase == gone and phse == started", []),  # not asked: the first part is enough
        ("phase == started and phse == x or sandbx", ["'phse'", "'sandbx'"]),
        ('containers[9].status or nowhere["a.b"].c', ["'containers[9].status'", "'nowhere"]),
    ],
)
def test_a_path_that_led_nowhere_is_doubted(text: str, names: list[str]) -> None:
    check = parse_expression(text)
    assert check.doubts() == []
    assert check(STATE) is False
    doubts = check.doubts()
    assert len(doubts) == len(names)
    assert all(doubt.startswith(name) for doubt, name in zip(doubts, names, strict=True))


def test_a_doubt_says_what_there_is_and_goes_once_it_led_somewhere() -> None:
    check = parse_expression("a.x == 1")
    check({"a": {str(number): 0 for number in range(20)}})
    assert check.doubts() == [
        "'a.x' led nowhere in anything that was looked at; "
        "there are 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, \N{HORIZONTAL ELLIPSIS}"
    ]
    check({"a": {"x": 2}})
    assert check.doubts() == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "at 1 want a path, but there is 'the end'"),
        ("phase ==", "at 9 want a value"),
        ("phase started", "at 7 want and, or, a comparison or the end"),
        ("(phase", r"want '\)'"),
        ("phase = started", "'= started' at 7 is not understood"),
        ("3 == number", "at 1 want a path"),
        ("sum(x) > 1", "'sum' at 1: want count, any, all or len"),
        ("len(3)", "at 5 want a path"),
        ("a[", "want a name or an index"),
        ("a in [[1]]", "a value that is no list"),
        ("a in [1 2]", "want ','"),
        ("a =~ '('", "is no regular expression"),
        ("not " * (NESTING_MAX + 2) + "a", "within each other"),
        ("(" * (NESTING_MAX + 2) + "a", "within each other"),
        ("a" * (EXPRESSION_CHARS_MAX + 1), "at most"),
        ("__import__('os')", "'__import__' at 1: want count"),
    ],
)
def test_what_is_no_question(text: str, says: str) -> None:
    with pytest.raises(ExpressionError, match=says):
        parse_expression(text)


@given(st.text(alphabet="ab. 0[]()<>=!&|~\"'\\,nortcu", max_size=60))
def test_any_text_is_a_question_or_is_refused(text: str) -> None:
    try:
        check = parse_expression(text)
    except ExpressionError:
        return
    assert check(STATE) in {True, False}
