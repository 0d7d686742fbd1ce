"""Commands that read a log: which one, how errors of it end them, and what is said beside."""

import sys
from collections.abc import Awaitable, Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Final, NoReturn, TypeVar

import click

from eventstore import EventStoreError, LogCorrupt, LogTooNew
from manager.schema.codec import EventFormatError, UnknownEventType
from manager.schema.layout import LOG_FILE
from manager.schema.moment import WhenOutside
from manager.schema.past import AsOf
from manager.schema.when import WhenError
from manager.terminal.ending import (
    EXIT_BROKEN,
    EXIT_INTERRUPTED,
    EXIT_TOO_NEW,
    EXIT_UNREADABLE,
    EXIT_USAGE,
    fail,
    leave_pipe,
    run,
)
from manager.terminal.manners import say
from manager.terminal.place import WHEN
from manager.terminal.table import full_time, printable

T = TypeVar("T")

SUGGESTIONS_MAX: Final = 3

at_option = click.option("--at", type=WHEN, help="A point of the past; see `sandtrail help when`.")


def log_path(root: Path, log: Path | None) -> Path:
    """The log that is meant; ends the process if there is none."""
    path = log or root / LOG_FILE
    if not path.is_file():
        what = "is no file" if path.exists() else "is not there"
        fail(
            f"the log {printable(str(path))} {what}: name the service's state directory with "
            "--root, or a log with --log",
            EXIT_UNREADABLE,
        )
    return path


def read_log(call: Callable[[], Awaitable[T]]) -> T:
    """Run a coroutine that reads a log; an error ends the process with one line on stderr."""
    try:
        return run(call)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        leave_pipe()
    except WhenError as error:
        outside = isinstance(error, WhenOutside)
        fail(printable(str(error)), EXIT_UNREADABLE if outside else EXIT_USAGE)
    except (LogTooNew, UnknownEventType) as error:
        fail(printable(str(error)), EXIT_TOO_NEW)
    except LogCorrupt as error:
        fail(f"{printable(str(error))}; `sandtrail audit verify` looks further", EXIT_BROKEN)
    except (EventStoreError, EventFormatError, OSError) as error:
        fail(printable(str(error)), EXIT_UNREADABLE)


def say_as_of(moment: AsOf) -> None:
    """Tell on stderr which point is shown."""
    when = f"  {full_time(moment.time_ns)}" if moment.time_ns else ""
    say(f"as of #{moment.position}{when}")


def unknown(what: str, given: str, known: list[str], *, lived_until: int = 0) -> NoReturn:
    """End the process: there is no such id; ids that are like it are named.

    ``lived_until`` is the last position at which there was one, if there was.
    """
    near = get_close_matches(given, dict.fromkeys(known), n=SUGGESTIONS_MAX)
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
    if lived_until:
        hint = f" any more; look at it with --at '#{lived_until}'"
    fail(f"{what} {given!r} not found{hint}", EXIT_UNREADABLE)
