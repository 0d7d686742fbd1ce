"""``sandtrail replay step``: through a log, event by event, in the terminal."""

import codecs
import os
import re
import sys
import termios
import tty
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import click
import msgspec

from eventstore import EventStoreError, RecordedEvent
from manager.schema.codec import EventFormatError
from manager.schema.marks import read_marks
from manager.schema.node_snapshot import node_snapshots, open_fold, recall
from manager.schema.summary import summary
from manager.terminal.ending import EXIT_NO, EXIT_USAGE, fail, run
from manager.terminal.output import json_option
from manager.terminal.place import complete_target_lazily, log_option, root_option
from manager.terminal.reading import log_path, read_log
from manager.terminal.table import harmless_json, printable
from replay.cli.scrubber import Scrubber, State
from replay.cli.step_answers import whatif_lines, why_lines
from replay.describe import event_object
from replay.explanation import WhyError
from replay.selection import Selection
from replay.settings import SettingError
from replay.trail import Trail, Window

STEPS_MAX: Final = 20_000
"""Longer stretches have to be narrowed: every state of one is kept in memory."""
KEY: Final = re.compile(r"\x1b\[[0-9;]*[A-Za-z~]|\x1bO[A-Z]|.", re.DOTALL)
READ_BYTES: Final = 1024


@click.command("step")
@root_option
@log_option
@json_option
@click.option("--since", metavar="WHEN", help="Begin there; see `sandtrail help when`.")
@click.option("--until", metavar="WHEN", help="End there.")
@click.argument("sandbox", required=False, default="", shell_complete=complete_target_lazily)
def command(
    root: Path, log: Path | None, as_json: bool, since: str | None, until: str | None, sandbox: str
) -> None:
    """Go through the events of a sandbox, or of all, and see the state after each.

    \b
    Keys: left, right (h l)  the event before, the next one
          g G                the first, the last
          f                  the next failure
          [ ]                the mark before, the next one
          /                  the next event with a text in it; / Enter: again
          d                  what the event changed, instead of the state
          y                  why the container's status is what it is
          w                  would it be decided so under KEY=VALUE
          q                  quit

    With --json, which needs no terminal, each event with the state after it, one a line.
    """
    path = log_path(root, log)
    if not as_json and not (sys.stdin.isatty() and sys.stdout.isatty()):
        fail(
            "step needs a terminal, or --json; `sandtrail replay show --at` prints one state",
            EXIT_USAGE,
        )

    async def call() -> Scrubber | None:
        async with Trail.open(path) as trail:
            window = await trail.window(since, until)
            if not as_json:
                return await gather(trail, window, sandbox)
            async for record, state in walk(trail, window, sandbox):
                click.echo(_line(record, state))
            return None

    scrubber = read_log(call)
    if scrubber is not None:
        _scrub(scrubber, path)


def _line(record: RecordedEvent, state: State) -> str:
    items = [summary(each) for each in state.values()]
    body = {"schema": "sandtrail.step/v1", "event": event_object(record), "items": items}
    return harmless_json(msgspec.json.encode(body))


def _scrub(scrubber: Scrubber, path: Path) -> None:
    with _screen() as keys:
        wish = ""
        while wish != "quit":
            if wish == "why":
                scrubber.answer(_asked(why_lines(path, scrubber)))
            elif wish == "what if":
                scrubber.answer(_asked(whatif_lines(path, scrubber)))
            size = os.get_terminal_size()
            text = "\x1b[H\x1b[2J" + "\r\n".join(scrubber.lines(size.columns, size.lines))
            sys.stdout.write(text)
            sys.stdout.flush()
            wish = scrubber.press(next(keys, "q"))


def _asked(answer: Awaitable[list[str]]) -> list[str]:
    """An answer of the log; that there is none is one, too."""

    async def call() -> list[str]:
        return await answer

    try:
        return run(call)
    except (WhyError, SettingError, EventStoreError, EventFormatError, OSError) as error:
        return [printable(str(error))]


async def walk(
    trail: Trail, window: Window, sandbox: str
) -> AsyncIterator[tuple[RecordedEvent, State]]:
    """The events of a window, each with the sandboxes after it; of one sandbox if it is named.

    Raises:
        EventStoreError: The log cannot be read.
        EventFormatError: An event is of a newer program, or damaged; the text names it.
    """
    fold = await open_fold(trail.log, node_snapshots(trail.path.parent), until=window.first - 1)
    async for record in trail.events(Selection(sandbox=sandbox), window):
        await recall(fold, trail.log, record)
        fold.apply(record)
        yield (
            record,
            {
                name: folded.state
                for name, folded in fold.live.items()
                if not sandbox or name == sandbox
            },
        )


async def gather(trail: Trail, window: Window, sandbox: str) -> Scrubber:
    """Read a stretch; ends the process if there is nothing in it, or too much; raises as walk."""
    records: list[RecordedEvent] = []
    states: list[State] = []
    fold = await open_fold(trail.log, node_snapshots(trail.path.parent), until=window.first - 1)
    before = {
        name: folded.state for name, folded in fold.live.items() if not sandbox or name == sandbox
    }
    async for record, state in walk(trail, window, sandbox):
        if len(records) == STEPS_MAX:
            fail(f"more than {STEPS_MAX} events: narrow it with --since and --until", EXIT_USAGE)
        records.append(record)
        states.append(state)
    if not records:
        fail("no event is in that window", EXIT_NO)
    marks = {name: mark.at for name, mark in (await read_marks(trail.log)).items()}
    return Scrubber(records, states, before, marks)


@contextmanager
def _screen() -> Iterator[Iterator[str]]:
    """The terminal for itself; gives the keys that are pressed."""
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    try:
        tty.setraw(fd)
        sys.stdout.write("\x1b[?1049h\x1b[?25l")
        yield _keys(fd)
    finally:
        sys.stdout.write("\x1b[?25h\x1b[?1049l")
        sys.stdout.flush()
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


def _keys(fd: int) -> Iterator[str]:
    """One key after the other: a terminal sends the bytes of one together, but not only these."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    while raw := os.read(fd, READ_BYTES):
        yield from KEY.findall(decoder.decode(raw))
