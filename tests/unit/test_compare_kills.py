"""Whom the comparison with other container managers kills."""

from pathlib import Path

import pytest

from benchmarks.compare_kills import processes_of, said


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
