"""``sandtrail log``."""

import pwd
import re
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

import anyio
import click

from eventstore import RecordedEvent
from manager.terminal.ending import EXIT_INCONCLUSIVE, EXIT_NO, EXIT_TIMEOUT, fail
from manager.terminal.manners import never_page, page, say
from manager.terminal.output import json_option
from manager.terminal.place import (
    WHEN,
    WRITTEN_FILE,
    complete_container_lazily,
    complete_sandbox_lazily,
    complete_type_lazily,
    log_option,
    root_option,
)
from manager.terminal.reading import log_path, read_log
from manager.terminal.table import print_table, printable
from manager.terminal.timeout import timeout_option
from manager.terminal.tree import scalar
from replay.cli.log_table import log_row, print_events
from replay.cli.window_line import window_line
from replay.cursor_file import CursorKeeper, CursorUnknown, load_cursor
from replay.describe import EVENT_FIELDS, event_fields, event_line
from replay.expression import ExpressionError, Question, parse_expression
from replay.outcome import FAIL, OUTCOMES
from replay.selection import (
    PATTERN_CHARS_MAX,
    Selection,
    event_subject,
    known_types,
)
from replay.trail import Trail, Window

TABLE_ROWS_MAX: Final = 1000
"""Longer lists are printed line by line: a table has to be complete before its first line."""


def question(_: click.Context, __: click.Parameter, text: str | None) -> Any:
    """An expression, parsed."""
    try:
        return None if text is None else parse_expression(text)
    except ExpressionError as error:
        raise click.BadParameter(str(error)) from None


def say_doubts(asked: Question) -> None:
    """Tell somebody whose question nothing answered with yes that it may be misspelt."""
    for doubt in asked.doubts():
        say(f"note: {printable(doubt)}")


def user_id(_: click.Context, __: click.Parameter, text: str | None) -> int | None:
    """A user by number (``0``, ``uid:0``) or by name."""
    if text is None:
        return None
    digits = text.removeprefix("uid:")
    if digits.isascii() and digits.isdigit():
        return int(digits)
    try:
        return pwd.getpwnam(text).pw_uid
    except KeyError:
        raise click.BadParameter(f"{text!r} is no user here: want a name or uid:NUMBER") from None


def pattern(_: click.Context, __: click.Parameter, text: str) -> str:
    """A regular expression that can be compiled."""
    try:
        if len(text) > PATTERN_CHARS_MAX:
            raise click.BadParameter(f"at most {PATTERN_CHARS_MAX} characters")
        re.compile(text)
    except (re.error, RecursionError, OverflowError) as error:
        raise click.BadParameter(f"{text!r} is no regular expression: {error}") from None
    return text


def fields(_: click.Context, __: click.Parameter, text: str | None) -> tuple[str, ...]:
    """Names of members of an event's JSON, the first part of each known."""
    names = tuple(each.strip() for each in text.split(",")) if text else ()
    for name in names:
        if name.partition(".")[0] not in EVENT_FIELDS:
            raise click.BadParameter(f"{name!r} is no member: want {', '.join(EVENT_FIELDS)}")
    return names


def tags(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    """Event types, all of them known."""
    from manager.schema.events import EVENT_TYPES  # noqa: PLC0415 - only to check them
    from manager.schema.node_events import NODE_EVENT_TYPES  # noqa: PLC0415 - the same

    known = {**EVENT_TYPES, **NODE_EVENT_TYPES}
    if unknown := known_types(given, known):
        near = get_close_matches(unknown[0], known, n=1)
        hint = f", did you mean {near[0]!r}?" if near else ":"
        raise click.BadParameter(
            f"no event has the type {unknown[0]!r}{hint} `sandtrail help events`"
        )
    return given


@click.command("log")
@root_option
@log_option
@json_option
@click.option("--since", type=WHEN, help="Begin there; see `sandtrail help when`.")
@click.option("--until", type=WHEN, help="End there; that included, but for a bare date.")
@click.option(
    "--after",
    "--after-cursor",
    "after",
    type=click.IntRange(min=0),
    metavar="POSITION",
    help="Begin after it.",
)
@click.option("--cursor-file", type=WRITTEN_FILE, metavar="FILE",
              help="Begin after what it names; name there what was printed last.")  # fmt: skip
@click.option("-s", "--sandbox", default="", shell_complete=complete_sandbox_lazily,
              help="Only events of this sandbox.")  # fmt: skip
@click.option(
    "-c",
    "--container",
    default="",
    shell_complete=complete_container_lazily,
    help="Only events of this container.",
)
@click.option("-t", "--type", "types", multiple=True, metavar="TAG", callback=tags,
              shell_complete=complete_type_lazily, help="Only these; repeatable.")  # fmt: skip
@click.option("--outcome", type=click.Choice([FAIL, *OUTCOMES]), default=None,
              help="Only events with this outcome; fail: all but ok.")  # fmt: skip
@click.option("--actor", callback=user_id, metavar="USER", help="Only what this user asked for.")
@click.option("--cause", "causes", type=WHEN, multiple=True,
              help="Only what this event led to, at whatever remove.")  # fmt: skip
@click.option("--grep", "regex", default="", callback=pattern, metavar="RE",
              help="Only events with a match in their payload.")  # fmt: skip
@click.option("--where", callback=question, metavar="EXPR",
              help="Only if this is so of it; see `sandtrail help expressions`.")  # fmt: skip
@click.option("--fields", callback=fields, metavar="A,B",
              help="Only these members of its JSON; data.exit.code goes deeper.")  # fmt: skip
@click.option("-n", "--lines", type=click.IntRange(min=0), help="Only the last so many.")
@click.option("-r", "--reverse", is_flag=True, help="Newest event first.")
@click.option("--count", is_flag=True, help="Print how many there are, and nothing else.")
@click.option("--fail-empty", is_flag=True, help="Exit with 1 if there is no such event.")
@click.option("-f", "--follow", is_flag=True, help="Go on with new events as they come.")
@click.option("--until-match", callback=question, metavar="EXPR",
              help="Stop after such an event; see `sandtrail help expressions`.")  # fmt: skip
@timeout_option
def command(root: Path, log: Path | None, as_json: bool, **how: Any) -> None:
    """Print the log, oldest event first; with --json one object a line.

    Reads the file itself: no service needs to run. The order is that of positions; ⟲ marks a time
    that is before the one above it.
    """
    path = log_path(root, log)
    _check_together(how)
    job = _Job(as_json, how)

    async def call() -> None:
        async with Trail.open(path) as trail:
            with anyio.move_on_after(how["timeout"]) as scope:
                await job.run(trail)
            if scope.cancelled_caught:
                sys.exit(EXIT_TIMEOUT)

    try:
        read_log(call)
    except CursorUnknown as error:
        fail(str(error), EXIT_INCONCLUSIVE)
    if job.unmatched or (how["fail_empty"] and job.printed == 0):
        sys.exit(EXIT_NO)


def _check_together(how: dict[str, Any]) -> None:
    """Refuse options of which one would have to be ignored."""
    lines = how["lines"] is not None
    if how["follow"] and (how["reverse"] or how["count"] or how["until"] or lines):
        raise click.UsageError("--follow goes on for ever: not with --until, -n, -r or --count")
    if how["count"] and (lines or how["until_match"] is not None):
        raise click.UsageError("--count tells how many there are: not with -n or --until-match")
    if how["cursor_file"] and (how["reverse"] or lines or how["count"]):
        raise click.UsageError("--cursor-file goes with reading on: not with -n, -r or --count")
    if how["cursor_file"] and how["after"] is not None:
        raise click.UsageError("--after and --cursor-file both say where to begin")


class _Job:
    """One call of the command."""

    def __init__(self, as_json: bool, how: dict[str, Any]) -> None:
        self._as_json = as_json
        self._how = how
        self.unmatched = how["until_match"] is not None
        self.printed = 0
        self._last: RecordedEvent | None = None
        self._cursor = CursorKeeper(how["cursor_file"])
        self._fields: tuple[str, ...] = how["fields"]

    async def run(self, trail: Trail) -> None:
        how = self._how
        causes = [await trail.position(each) for each in how["causes"]]
        selection = Selection(
            sandbox=how["sandbox"],
            container=how["container"],
            types=how["types"],
            outcome=how["outcome"] or "",
            uid=how["actor"],
            pattern=how["regex"],
            where=how["where"],
            causes=tuple(causes),
        )
        window = await self._window(trail)
        try:
            if how["follow"]:
                async with aclosing(trail.follow(selection, after=window.first - 1)) as coming:
                    await self._print_lines(coming)
            elif how["count"]:
                await self._count(trail, selection, window)
            else:
                if how["cursor_file"]:
                    never_page()  # what a pager has taken nobody has seen yet
                page()
                records = self._listed(trail, selection, window)
                await (self._print_lines if self._as_json else self._print_table)(records)
        finally:
            self._cursor.save()
        if not how["follow"]:
            await self._say(trail, window)

    async def _window(self, trail: Trail) -> Window:
        how = self._how
        window = await trail.window(how["since"], how["until"])
        after = how["after"] or 0
        if how["cursor_file"] and (cursor := load_cursor(how["cursor_file"])) is not None:
            known = await trail.record(cursor.position)
            if known is None or known.event_id != cursor.event_id:
                raise CursorUnknown(
                    f"#{cursor.position} is not the event that {how['cursor_file']} names: "
                    "it is of another log; remove the file to begin anew"
                )
            after = cursor.position
        return Window(first=max(window.first, after + 1), last=window.last)

    async def _listed(
        self, trail: Trail, selection: Selection, window: Window
    ) -> AsyncIterator[RecordedEvent]:
        lines, reverse = self._how["lines"], self._how["reverse"]
        if reverse and selection.causes:
            raise click.UsageError("--cause looks from the beginning: not with --reverse")
        if lines is None or reverse:
            left = lines
            async for record in trail.events(selection, window, backwards=reverse):
                if left is not None:
                    if left == 0:
                        return
                    left -= 1
                yield record
            return
        for record in await trail.newest(selection, window, lines):
            yield record

    async def _count(self, trail: Trail, selection: Selection, window: Window) -> None:
        async for _ in trail.events(selection, window):
            self.printed += 1
        click.echo(self.printed)

    async def _print_lines(self, records: AsyncIterator[RecordedEvent]) -> None:
        async for record in records:
            if self._as_json:
                click.echo(event_line(record, self._fields))
            else:
                click.echo("  ".join(map(printable, self._row(record))).rstrip())
            self._cursor.shown(record)
            if self._is_last(record):
                return

    async def _print_table(self, records: AsyncIterator[RecordedEvent]) -> None:
        rows: list[tuple[str, ...]] = []
        last: RecordedEvent | None = None
        ended = False
        async for record in records:
            rows.append(self._row(record))
            last = record
            ended = self._is_last(record)
            if ended or len(rows) >= TABLE_ROWS_MAX:
                break
        if last is not None:
            if self._fields:
                print_table(self._fields, rows)
            else:
                print_events(rows)
            self._cursor.shown(last)
        if not ended:
            await self._print_lines(records)

    def _is_last(self, record: RecordedEvent) -> bool:
        """Count an event as one to print; whether it is the one to stop after."""
        self._last = record
        self.printed += 1
        matches = self._how["until_match"]
        if matches is None or not matches(event_subject(record)):
            return False
        self.unmatched = False
        return True

    def _row(self, record: RecordedEvent) -> tuple[str, ...]:
        if self._fields:
            chosen = event_fields(record, self._fields)
            return tuple(scalar(chosen[name]) for name in self._fields)
        before = self._last
        stepped = (
            before is not None
            and not self._how["reverse"]
            and record.recorded_at_ns < before.recorded_at_ns
        )
        return log_row(record, stepped=stepped)

    async def _say(self, trail: Trail, window: Window) -> None:
        """Tell what was looked at, so that a short list cannot be taken for a short log.

        A position that is missing in it would have ended the reading with an error.
        """
        say(await window_line(trail, window))
        if self.printed == 0 and self._how["where"] is not None:
            say_doubts(self._how["where"])
        if self.unmatched:
            say_doubts(self._how["until_match"])
        if window.count:
            sealed = trail.sealed()
            tail = f"sealed to #{sealed}" if sealed else "not sealed yet"
            say(
                f"window #{window.first}\u2013#{window.last} · "
                f"{self.printed:,} of {window.count:,} events match · "
                f"log complete from #1, 0 dropped, {tail}"
            )
