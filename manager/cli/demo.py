"""``sandtrail demo``."""

import shlex
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NoReturn

import click

from eventstore import EventStoreError, Signer, copy_log, load_signer
from manager.demo.incident import EVENTS, write_incident
from manager.schema.layout import PUBLIC_SUFFIX
from manager.schema.when import Instant, WhenError, parse_when
from manager.terminal.ending import EXIT_UNREADABLE, fail, run
from manager.terminal.output import json_option, print_json
from manager.terminal.place import WHEN, WRITTEN_FILE
from manager.terminal.table import full_time, printable

KEY_SUFFIX: Final = ".key"
MEMORY: Final = Path("/dev/shm")
"""Where a thousand appends need not wait for a disk."""
NEXT: Final = """\
What failed?
  sandtrail log --log {log} --since {hour} --outcome fail
Why is web down?
  sandtrail replay why web --log {log}
How was it before?
  sandtrail ps --log {log} --at mark:deploy
Is it what was sealed?
  sandtrail audit verify --log {log} --key {key}"""


def end(_: click.Context, __: click.Parameter, text: str | None) -> int:
    """A time, in nanoseconds since 1970; now, to the second, if none is given."""
    now_ns = time.time_ns()
    if text is None:
        return now_ns // 10**9 * 10**9
    try:
        found = parse_when(text, now_ns=now_ns)
    except WhenError as error:
        raise click.BadParameter(printable(str(error))) from None
    if not isinstance(found, Instant):
        raise click.BadParameter(f"{text!r} is no time: want one such as 2026-11-23T01:30")
    return found.at_ns


@click.command("demo")
@click.option("--out", required=True, type=WRITTEN_FILE, metavar="FILE",
              help="The log, a new file; its key is made beside it.")  # fmt: skip
@click.option("--seed", type=int, default=1, show_default=True, help="What chance begins with.")
@click.option("--end", "end_ns", type=WHEN, callback=end, metavar="TIME",
              help="When the story ends, instead of now.")  # fmt: skip
@json_option
def command(out: Path, seed: int, end_ns: int, as_json: bool) -> None:
    """Make a log to try the tools on: a thousand events, at whose end something went wrong.

    No container is started and no service is needed. The same seed and end give the same events.
    """
    key = Path(f"{out}{KEY_SUFFIX}")
    for each in (out, key):
        if each.exists():
            fail(f"{printable(str(each))} exists: a demo is a new file", EXIT_UNREADABLE)
    if not out.absolute().parent.is_dir():
        fail(f"{printable(str(out.parent))} is no directory", EXIT_UNREADABLE)
    try:
        with _no_key_without_log(out, key):
            _write(out, load_signer(key), seed, end_ns)
    except (EventStoreError, OSError) as error:
        _cannot(out, error)
    if as_json:
        print_json("demo", log=str(out), key=str(key), events=EVENTS, seed=seed, end_ns=end_ns)
        return
    click.echo(f"{out}: {EVENTS:,} events until {full_time(end_ns)}, sealed by {key}")
    hour = "-1h" if time.time_ns() - end_ns < 60 * 10**9 else f"@{end_ns // 10**9 - 3600}"
    log, public = (shlex.quote(f"{each}") for each in (out, f"{key}{PUBLIC_SUFFIX}"))
    click.echo(NEXT.format(log=log, key=public, hour=hour))


@contextmanager
def _no_key_without_log(out: Path, key: Path) -> Iterator[None]:
    """However the block ends, with Ctrl-C too: a key without a log is in the way of a retry."""
    try:
        yield
    finally:
        if not out.exists():
            for each in (key, Path(f"{key}{PUBLIC_SUFFIX}")):
                with suppress(OSError):  # it may never have been made
                    each.unlink()


def _write(out: Path, signer: Signer, seed: int, end_ns: int) -> None:
    """Make the log where it is fast, and put it in its place whole."""
    place = MEMORY if MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="sandtrail-", dir=place) as directory:
        made = Path(directory) / "demo.db"
        run(lambda: write_incident(made, signer, seed=seed, end_ns=end_ns))
        copy_log(made, out, trusted=[signer.verifier])


def _cannot(out: Path, error: Exception) -> NoReturn:
    fail(f"{printable(str(out))} cannot be made: {printable(str(error))}", EXIT_UNREADABLE)
