"""Whom the comparison with other container managers kills."""

from pathlib import Path

import pytest

from benchmarks.compare_kills import BOTH, CASES, as_promised, processes_of, said


def test_a_process_that_ends_meanwhile_is_nobody(tmp_path: Path) -> None:
    state = tmp_path / "state"
    for pid, command in (
        ("7", b"python\0-m\0manager.worker\0--state\0" + bytes(state)),
        ("8", b"python\0-m\0manager.worker\0--state\0/elsewhere"),
        ("9", b"sleep\0" + bytes(state)),
    ):
        (tmp_path / pid).mkdir()
        (tmp_path / pid / "cmdline").write_bytes(command)
    (tmp_path / "10").mkdir()
    assert processes_of(state, "manager.worker", tmp_path) == [7]


@pytest.mark.parametrize(
    ("answers", "cell"),
    [
        (["42"], "42"),
        (["42", "42", "42"], "42"),
        (["gone", "42", "42"], "42 (2 of 3); gone (1 of 3)"),
    ],
)
def test_answers_that_differ_are_counted(answers: list[str], cell: str) -> None:
    assert said(answers) == cell


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("told_by_pidfd", [True, False])
@pytest.mark.parametrize(
    ("answer", "is_the_code"),
    [
        ("42", True),
        ("0", False),
        ("no answer", False),
        ("42; its container died of it", False),
        ('sandtrail: exit status of container "victim" is lost: nobody could tell it', False),
        ('sandtrail: container "victim" is lost: the machine was rebooted', False),
    ],
)
def test_an_answer_that_was_not_promised_is_a_failure(
    case: str, told_by_pidfd: bool, answer: str, is_the_code: bool
) -> None:
    may_be_lost = case == BOTH and not told_by_pidfd
    expected = " is lost: " in answer if may_be_lost else is_the_code
    assert as_promised(case, answer, told_by_pidfd=told_by_pidfd) == expected
