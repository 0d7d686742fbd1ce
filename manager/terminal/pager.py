"""A pager for people, where they look at a terminal: as `git log` has one.

From :func:`begin` on, what is printed goes through it, the lines on stderr among it, so that both
stay in order. Whoever leaves the pager early ends the command.
"""

import atexit
import contextlib
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from typing import Final

from manager.terminal.ending import PAGER_IN_USE

PAGERS: Final = ("SANDTRAIL_PAGER", "PAGER")
DEFAULT_PAGER: Final = "less"
LESS: Final = "FRX"
"""Leave at once if all fits on the screen, let colours through, leave the screen as it is."""


def begin(environment: Mapping[str, str]) -> None:
    """Page what is printed from now on, if there is a pager; see :func:`manners.page`."""
    program = pager_of(environment)
    if program:
        _begin(program)


def pager_of(environment: Mapping[str, str]) -> list[str]:
    """The pager and its arguments; empty if there is none, or none is wanted."""
    if environment.get("TERM", "dumb") == "dumb":
        return []
    named = next((environment[name] for name in PAGERS if name in environment), DEFAULT_PAGER)
    try:
        program = shlex.split(named)
    except ValueError:  # a quotation that does not end
        return []
    usable = program and program != ["cat"] and shutil.which(program[0])
    return program if usable else []


def _begin(program: list[str]) -> None:
    # It is the pager's terminal from here on: what is left for tables to ask, they ask these.
    os.environ.setdefault("COLUMNS", str(shutil.get_terminal_size().columns))
    os.environ.update({"FORCE_COLOR": "1", PAGER_IN_USE: "1"})
    environment = {"LESS": LESS, **os.environ}
    process = subprocess.Popen(program, stdin=subprocess.PIPE, env=environment)
    assert process.stdin is not None, "it is a pipe"
    sys.stdout.flush()
    to_pager = process.stdin.fileno()
    os.dup2(to_pager, sys.stdout.fileno())
    if sys.stderr.isatty():
        os.dup2(to_pager, sys.stderr.fileno())
    process.stdin.close()
    atexit.register(_end, process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Let go of the pager's pipe, and wait until its reader has seen enough."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(BrokenPipeError):
            stream.flush()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.dup2(nowhere, sys.stderr.fileno())
    while process.poll() is None:
        with contextlib.suppress(KeyboardInterrupt):  # it is for the pager, which decides
            process.wait()
