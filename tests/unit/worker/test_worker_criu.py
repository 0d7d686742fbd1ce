"""What CRIU says, how it is told, and why an engine cannot save processes."""

from pathlib import Path

import pytest

from manager.worker.criu import (
    NOT_INSTALLED,
    UNTRIED,
    check_problem,
    find_criu,
    first_error,
    names_image,
    options,
)
from manager.worker.engines import why_crun_does_not_save

FAILED = """\
Error (criu/util.c:642): exited, status=1
Error (criu/vdso.c:381): vdso: Unexpected rt vDSO area bounds
Error (criu/crtools.c:260): Could not initialize kernel features detection.
"""
LOG = """\
(00.000127) Error (criu/rlimit.c:20): rlimit: Can't setup RLIMIT_NOFILE for self: Operation refused
(00.085233) 19210 fdinfo 0: pos:                0 flags:           100002/0
(00.085245) Error (criu/files-reg.c:1790): Can't lookup mount=27 for fd=1 path=/out
(00.085747) Error (criu/cr-dump.c:1975): Dumping FAILED.
"""


@pytest.mark.parametrize(
    ("code", "output", "problem"),
    [
        (0, "Looks good.\n", ""),
        (1, FAILED, "`criu check` fails: vdso: Unexpected rt vDSO area bounds"),
        (1, "", "`criu check` fails: it ended with 1"),
    ],
)
def test_the_first_cause_is_told(code: int, output: str, problem: str) -> None:
    assert check_problem(code, output) == problem


def test_the_first_error_of_a_log() -> None:
    assert first_error(LOG) == "Can't lookup mount=27 for fd=1 path=/out"
    assert first_error("all is well") == ""


def test_a_program_is_found_or_said_to_be_missing(tmp_path: Path) -> None:
    program = tmp_path / "criu"
    program.touch()
    assert find_criu(program).problem == f"{program} cannot be executed"
    program.chmod(0o755)
    found = find_criu(program)
    assert (found.path, found.problem) == (program, UNTRIED)
    assert find_criu(None).problem in {NOT_INSTALLED, UNTRIED}


def test_names_as_criu_writes_them() -> None:
    # As CRIU 4.2 has written it, of a container named runc.
    written = "1943565403324754 0e000000 0a0472756e63 1206286e6f6e6529".replace(" ", "")
    assert names_image("runc", "(none)").hex() == written
    assert names_image("", "").hex() == "194356540332475404000000" + "0a001200"


def test_options_are_lines() -> None:
    assert options(["external file[1:2]"]) == (
        "network-lock skip\nskip-file-rwx-check\nexternal file[1:2]\n"
    )


@pytest.mark.parametrize(
    ("version", "why"),
    [
        ("crun version 1.8.1\n+SYSTEMD +CAP +YAJL\n", "this crun is built without CRIU"),
        ("crun version 1.20\n+SYSTEMD +CRIU +YAJL\n", "sandtrail uses CRIU with runc only: "),
        ("", "this crun is built without CRIU"),
    ],
)
def test_why_crun_does_not_save(version: str, why: str) -> None:
    assert why_crun_does_not_save(version).startswith(why)
