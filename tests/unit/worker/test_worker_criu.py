"""What `criu check` says, and why an engine cannot save processes."""

import pytest

from manager.worker.criu import UNUSED, check_problem

FAILED = """\
Error (criu/util.c:642): exited, status=1
Error (criu/vdso.c:381): vdso: Unexpected rt vDSO area bounds
Error (criu/crtools.c:260): Could not initialize kernel features detection.
"""


@pytest.mark.parametrize(
    ("code", "output", "problem"),
    [
        (0, "Looks good.\n", UNUSED),
        (1, FAILED, "`criu check` fails: vdso: Unexpected rt vDSO area bounds"),
        (1, "", "`criu check` fails: it ended with 1"),
    ],
)
def test_the_first_cause_is_told(code: int, output: str, problem: str) -> None:
    assert check_problem(code, output) == problem
