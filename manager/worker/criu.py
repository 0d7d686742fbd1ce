"""Whether CRIU could save processes on this machine: crun and runc have no other way."""

import re
import shutil
import subprocess
from typing import Final

from manager.worker.processes import ENGINE_ENVIRONMENT

CHECK_SECONDS: Final = 5.0
"""Longest time that `criu check` may take."""

UNUSED: Final = "`criu check` passes here, but sandtrail does not use CRIU yet"
_ERROR: Final = re.compile(r"^Error \([^)]*\): (?!exited, status)(.+)$", re.MULTILINE)


def criu_problem() -> str:
    """Why no engine can save processes by CRIU, in words for a person."""
    path = shutil.which("criu", path=ENGINE_ENVIRONMENT["PATH"])
    if path is None:
        return "CRIU is not installed"
    try:
        result = subprocess.run(
            [path, "check"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=CHECK_SECONDS,
            check=False,
            text=True,
            errors="replace",
            env=ENGINE_ENVIRONMENT,
            cwd="/",
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"`criu check` cannot be run: {error}"
    return check_problem(result.returncode, result.stdout)


def check_problem(code: int, output: str) -> str:
    """What a `criu check` that ended with a code, and said this, means. Pure."""
    if code == 0:
        return UNUSED
    found = _ERROR.search(output)
    return f"`criu check` fails: {found.group(1) if found else f'it ended with {code}'}"
