"""How a command ends: its exit code, and one line on stderr if it did not do what was asked."""

import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Final, NoReturn, TypeVar

import click

EXIT_NO: Final = 1
EXIT_USAGE: Final = 2
EXIT_BROKEN: Final = 3
EXIT_INCONCLUSIVE: Final = 4
EXIT_UNREADABLE: Final = 5
EXIT_TOO_NEW: Final = 6
EXIT_BUG: Final = 70
EXIT_TIMEOUT: Final = 124
EXIT_NOT_STARTED: Final = 125
EXIT_NOT_EXECUTABLE: Final = 126
EXIT_NOT_FOUND: Final = 127
EXIT_INTERRUPTED: Final = 130
EXIT_PIPE_CLOSED: Final = 141

EXIT_CODES: Final = {
    0: "yes, or done",
    EXIT_NO: "a negative answer: refused, differs, nothing found",
    EXIT_USAGE: "the command line is wrong, or can be read in two ways",
    EXIT_BROKEN: "the log is broken, and that is proven",
    EXIT_INCONCLUSIVE: "inconclusive: no key, never sealed, not sealed so far",
    EXIT_UNREADABLE: "not found, or not readable",
    EXIT_TOO_NEW: "the log is of a newer program than this one",
    EXIT_BUG: "a bug of sandtrail; --debug shows where",
    EXIT_TIMEOUT: "the time given with --timeout is over",
    EXIT_NOT_STARTED: "`run`, `exec`: the process could not be started",
    EXIT_NOT_EXECUTABLE: "`run`, `exec`: its program cannot be executed",
    EXIT_NOT_FOUND: "`run`, `exec`: its program is not there",
    EXIT_INTERRUPTED: "interrupted by Ctrl-C",
    EXIT_PIPE_CLOSED: "whoever read the output has had enough",
}
"""What each exit code means. These never change."""

PAGER_IN_USE: Final = "SANDTRAIL_PAGER_IN_USE"
"""Set in the environment while a pager reads the output."""

T = TypeVar("T")


def hear_interrupts() -> None:
    """From now on Ctrl-C is an exception, so that what is under way can be cleaned up."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def run(call: Callable[[], Awaitable[T]]) -> T:
    """Run a command's coroutine."""
    import anyio  # noqa: PLC0415 - the help of a command needs no event loop

    return anyio.run(call)


def fail(text: str, code: int) -> NoReturn:
    """End the process with an error line; what was printed before it is out, if that can be."""
    try:
        sys.stdout.flush()
    except OSError:
        _forget_output()
    click.echo(f"sandtrail: {text}", err=True)
    sys.exit(code)


def leave_pipe() -> NoReturn:
    """End the process quietly after whoever read its output went away.

    A person who leaves the pager has seen what was wanted: that is no failure of the command.
    """
    _forget_output()
    sys.exit(0 if os.environ.get(PAGER_IN_USE) else EXIT_PIPE_CLOSED)


def _forget_output() -> None:
    """Let nothing be flushed to stdout any more when the interpreter ends: it would fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
