"""Marks: a name is given once, and the rule can be asked again with what the log kept."""

import pytest

from manager.domain.mark import (
    MESSAGE_CHARS_MAX,
    NO_MARKS,
    AddMark,
    MarkAdded,
    MarkEvent,
    MarkRejected,
    Marks,
    after_mark,
    decide_mark,
)


def folded(*events: MarkEvent) -> Marks:
    marks = NO_MARKS
    for number, event in enumerate(events):
        marks = after_mark(marks, event, 10 + number)
    return marks


def test_a_name_stands_for_a_point_or_for_its_own() -> None:
    here = decide_mark(NO_MARKS, AddMark(name="deploy", head=9, message="v2"))
    assert here == MarkAdded(name="deploy", message="v2")
    there = decide_mark(NO_MARKS, AddMark(name="before", head=9, at=9))
    assert there == MarkAdded(name="before", at=9)
    assert folded(here, there).places == {"deploy": 10, "before": 9}


@pytest.mark.parametrize(
    ("command", "error"),
    [
        (AddMark(name="", head=9), 'invalid mark "": want 1 to 128 characters'),
        (AddMark(name="../x", head=9), 'invalid mark "../x": want'),
        (AddMark(name="a\x1b[31m", head=9), r'invalid mark "a\x1b[31m": want'),
        (AddMark(name="deploy", head=99), 'mark "deploy" already exists, at #10'),
        (AddMark(name="next", head=9, at=10), "cannot mark #10: the log has #1 to #9"),
        (AddMark(name="next", head=9, at=-1), "cannot mark #-1: the log has #1 to #9"),
        (
            AddMark(name="next", head=9, message="x" * (MESSAGE_CHARS_MAX + 1)),
            'the message of mark "next" is longer than 1000 characters',
        ),
        (
            AddMark(name="next", head=9, request_id="r" * 129),
            "RequestID must have at most 128 characters, but has 129",
        ),
        (
            AddMark(name="next", head=9, request_id="first"),
            'RequestID "first" was used for Mark of "deploy" before',
        ),
    ],
)
def test_what_is_refused(command: AddMark, error: str) -> None:
    marks = folded(MarkAdded(name="deploy", request_id="first"))
    event = decide_mark(marks, command)
    assert isinstance(event, MarkRejected)
    assert event.error.startswith(error)
    assert (event.name, event.head, event.at) == (command.name, command.head, command.at)
    again = AddMark(
        name=event.name,
        head=event.head,
        at=event.at,
        message=event.message,
        request_id=event.request_id,
    )
    assert decide_mark(marks, again) == event, "what the event kept gives the same refusal"


def test_a_request_is_answered_once() -> None:
    command = AddMark(name="deploy", head=9, request_id="r")
    first = decide_mark(NO_MARKS, command)
    assert first is not None
    assert decide_mark(folded(first), command) is None


def test_a_refused_name_stays_free() -> None:
    refused = MarkRejected(name="deploy", error="no", head=9)
    assert folded(refused).places == {}


def test_of_a_name_that_comes_twice_the_first_counts() -> None:
    assert folded(MarkAdded(name="a"), MarkAdded(name="a", at=3)).places == {"a": 10}
