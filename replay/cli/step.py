"""``sandtrail replay step``: through a log, event by event, in the terminal."""

import os
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import click

from eventstore import RecordedEvent
from manager.domain.state import Sandbox
from manager.schema.node_snapshot import node_snapshots, open_fold, recall
from manager.schema.summary import summary
from manager.terminal.ending import EXIT_NO, EXIT_USAGE, fail
from manager.terminal.place import complete_target_lazily, log_option, root_option
from manager.terminal.reading import log_path, read_log
from manager.terminal.sandboxes import COLUMNS, rows_of
from manager.terminal.table import full_time, plain_table, printable
from replay.describe import detail, where
from replay.outcome import FAIL, fits, outcome_of
from replay.selection import Selection, payload
from replay.trail import Trail, Window

STEPS_MAX: Final = 20_000
"""Longer stretches have to be narrowed: every state of one is kept in memory."""
KEYS: Final = {
    "\x1b[C": "next", "l": "next", "n": "next", " ": "next",
    "\x1b[D": "back", "h": "back", "p": "back",
    "\x1b[H": "first", "g": "first", "\x1b[F": "last", "G": "last",
    "f": "failure", "q": "quit", "\x03": "quit", "\x04": "quit",
}  # fmt: skip
HELP: Final = "<- -> event   g G first, last   f next failure   q quit"
ESCAPE_BYTES_MAX: Final = 8

State = dict[str, Sandbox]


class Scrubber:
    """A stretch of a log with the states after each of its events; where one stands in it."""

    def __init__(self, records: list[RecordedEvent], states: list[State]) -> None:
        self.records = records
        self.states = states
        self.at = 0

    def press(self, key: str) -> bool:
        """Act upon a key; whether to go on."""
        match KEYS.get(key):
            case "next":
                self.at = min(self.at + 1, len(self.records) - 1)
            case "back":
                self.at = max(self.at - 1, 0)
            case "first":
                self.at = 0
            case "last":
                self.at = len(self.records) - 1
            case "failure":
                self.at = next(self._failures(), self.at)
            case "quit":
                return False
        return True

    def _failures(self) -> Iterator[int]:
        for number in range(self.at + 1, len(self.records)):
            record = self.records[number]
            if fits(outcome_of(record.type, payload(record)), FAIL):
                yield number

    def lines(self, columns: int, rows: int) -> list[str]:
        """What a screen of that size shows."""
        record = self.records[self.at]
        items = [summary(state) for state in self.states[self.at].values()]
        head = [
            f"{self.at + 1} of {len(self.records)}   #{record.position}   "
            f"{full_time(record.recorded_at_ns)}",
            f"{printable(record.type)}   {printable(where(record))}",
            printable(detail(payload(record))),
            "",
        ]
        shown = [*head, *plain_table(COLUMNS, rows_of(items))]
        room = max(1, rows - 1)
        if len(shown) > room:
            shown = [*shown[: room - 1], f"... {len(shown) - room + 1} more"]
        padding = [""] * (room - len(shown))
        return [line[:columns] for line in (*shown, *padding, HELP)]


@click.command("step")
@root_option
@log_option
@click.option("--since", metavar="WHEN", help="Begin there; see `sandtrail help when`.")
@click.option("--until", metavar="WHEN", help="End there.")
@click.argument("sandbox", required=False, default="", shell_complete=complete_target_lazily)
def command(
    root: Path, log: Path | None, since: str | None, until: str | None, sandbox: str
) -> None:
    """Go through the events of a sandbox, or of all, and see the state after each."""
    path = log_path(root, log)
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        fail("step needs a terminal; `sandtrail replay show --at` prints one state", EXIT_USAGE)

    async def call() -> Scrubber:
        async with Trail.open(path) as trail:
            window = await trail.window(since, until)
            return await gather(trail, window, sandbox)

    scrubber = read_log(call)
    if not scrubber.records:
        fail("no event is in that window", EXIT_NO)
    with _screen() as keys:
        going = True
        while going:
            size = os.get_terminal_size()
            text = "\x1b[H\x1b[2J" + "\r\n".join(scrubber.lines(size.columns, size.lines))
            sys.stdout.write(text)
            sys.stdout.flush()
            going = scrubber.press(next(keys, "q"))


async def gather(trail: Trail, window: Window, sandbox: str) -> Scrubber:
    """Read a stretch; ends the process if it is too long.

    Raises:
        EventStoreError: The log cannot be read.
        EventFormatError: An event is of a newer program, or damaged; the text names it.
    """
    fold = await open_fold(trail.log, node_snapshots(trail.path.parent), until=window.first - 1)
    records: list[RecordedEvent] = []
    states: list[State] = []
    async for record in trail.events(Selection(sandbox=sandbox), window):
        if len(records) == STEPS_MAX:
            fail(f"more than {STEPS_MAX} events: narrow it with --since and --until", EXIT_USAGE)
        await recall(fold, trail.log, record)
        fold.apply(record)
        records.append(record)
        states.append(
            {
                name: folded.state
                for name, folded in fold.live.items()
                if not sandbox or name == sandbox
            }
        )
    return Scrubber(records, states)


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
    """A key a read: a terminal sends the bytes of one together."""
    while raw := os.read(fd, ESCAPE_BYTES_MAX):
        yield raw.decode(errors="replace")
