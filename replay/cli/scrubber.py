"""Where one stands in a stretch of a log, and what a screen shows of it. Knows no terminal."""

import textwrap
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, Literal, TypeAlias

from eventstore import RecordedEvent
from manager.domain.state import Sandbox
from manager.schema.summary import inspection, summary
from manager.terminal.sandboxes import COLUMNS, rows_of
from manager.terminal.table import full_time, plain_table, printable
from replay.cli.diff import difference_line
from replay.describe import detail, event_line, where
from replay.difference import differences
from replay.outcome import FAIL, fits, outcome_of
from replay.selection import payload

KEYS: Final = {
    "\x1b[C": "next", "l": "next", "n": "next", " ": "next",
    "\x1b[D": "back", "h": "back", "p": "back",
    "\x1b[H": "first", "g": "first", "\x1b[F": "last", "G": "last",
    "f": "failure", "]": "mark", "[": "mark back", "/": "search", "d": "diff",
    "y": "why", "w": "what if", "q": "quit", "\x03": "quit", "\x04": "quit",
}  # fmt: skip
HELP: Final = "<- -> g G go  f fail  [ ] mark  / find  d diff  y why  w what-if  q quit"
ENTER: Final = {"\r", "\n"}
ERASE: Final = {"\x7f", "\x08"}
LEAVE: Final = {"\x1b", "\x03"}
PROMPTS: Final = {"search": "/", "what if": "what if "}
TYPED_CHARS_MAX: Final = 200

State: TypeAlias = dict[str, Sandbox]
Wish: TypeAlias = Literal["", "quit", "why", "what if"]
"""What only the log can answer, or the end."""


class Scrubber:
    """A stretch of a log with the states after each of its events; where one stands in it.

    Args:
        records: The events, at least one.
        states: The sandboxes after each.
        before: Those before the first.
        marks: Positions by the names that people gave them.
    """

    def __init__(
        self,
        records: Sequence[RecordedEvent],
        states: Sequence[State],
        before: State,
        marks: Mapping[str, int],
    ) -> None:
        self.records = records
        self.typed = ""
        self._states = (before, *states)
        self._marks = _placed(marks, records)
        self._at = 0
        self._prompt = ""
        self._searched = ""
        self._note = ""
        self._answer: list[str] = []
        self._compares = False

    @property
    def record(self) -> RecordedEvent:
        """The event that one stands at."""
        return self.records[self._at]

    @property
    def before(self) -> State:
        """The sandboxes before it."""
        return self._states[self._at]

    @property
    def after(self) -> State:
        """The sandboxes after it."""
        return self._states[self._at + 1]

    def press(self, key: str) -> Wish:
        """Act upon a key; what is left for the caller to do."""
        self._note = ""
        if self._prompt:
            return self._type(key)
        self._answer = []
        match KEYS.get(key):
            case "search" | "what if" as what:
                self._prompt, self.typed = what, ""
            case "diff":
                self._compares = not self._compares
            case "why":
                return "why"
            case "quit":
                return "quit"
            case str(where_to):
                self._go(where_to)
        return ""

    def answer(self, lines: Iterable[str]) -> None:
        """Show these until the next key."""
        self._answer = list(lines)

    def _go(self, where_to: str) -> None:
        last = len(self.records) - 1
        match where_to:
            case "next":
                self._at = min(self._at + 1, last)
            case "back":
                self._at = max(self._at - 1, 0)
            case "first":
                self._at = 0
            case "last":
                self._at = last
            case "failure":
                self._seek((each for each in self._later() if self._failed(each)), "no failure")
            case "mark":
                self._seek((each for each in self._later() if each in self._marks), "no mark")
            case "mark back":
                before = range(self._at - 1, -1, -1)
                self._seek((each for each in before if each in self._marks), "no mark")

    def _later(self) -> range:
        return range(self._at + 1, len(self.records))

    def _failed(self, number: int) -> bool:
        record = self.records[number]
        return fits(outcome_of(record.type, payload(record)), FAIL)

    def _seek(self, numbers: Iterator[int], otherwise: str) -> None:
        found = next(numbers, None)
        if found is None:
            self._note = otherwise
        else:
            self._at = found

    def _type(self, key: str) -> Wish:
        """A key while something is being typed."""
        if key in LEAVE:
            self._prompt = ""
        elif key in ERASE:
            self.typed = self.typed[:-1]
        elif key in ENTER:
            what, self._prompt = self._prompt, ""
            if what == "what if":
                return "what if"
            self._search(self.typed or self._searched)
        elif key.isprintable() and len(self.typed) < TYPED_CHARS_MAX:
            self.typed += key
        return ""

    def _search(self, text: str) -> None:
        self._searched = text
        wanted = text.casefold()
        found = (each for each in self._later() if wanted in self._text(each))
        self._seek(found, f"no event after this one has {text!r}")

    def _text(self, number: int) -> str:
        return event_line(self.records[number]).casefold()

    def lines(self, columns: int, rows: int) -> list[str]:
        """What a screen of that size shows."""
        record = self.record
        head = [
            f"{self._at + 1} of {len(self.records)}   #{record.position}   "
            f"{full_time(record.recorded_at_ns)}"
            + "".join(f"   mark:{name}" for name in self._marks.get(self._at, ())),
            f"{printable(record.type)}   {printable(where(record))}",
            printable(detail(payload(record))),
            "",
        ]
        body = [part for line in self._body() for part in _folded(line, columns)]
        room = max(1, rows - 1)
        shown = [*head, *(body if self._answer or self._compares else self._table())]
        if len(shown) > room:
            shown = [*shown[: room - 1], f"... {len(shown) - room + 1} more"]
        padding = [""] * (room - len(shown))
        return [line[:columns] for line in (*shown, *padding, self._foot(columns))]

    def _table(self) -> list[str]:
        items = [summary(state) for state in self.after.values()]
        return plain_table(COLUMNS, rows_of(items))

    def _body(self) -> Iterator[str]:
        if self._answer:
            yield from self._answer
            return
        before, after = (
            {name: inspection(state) for name, state in states.items()}
            for states in (self.before, self.after)
        )
        changed = False
        for each in differences(before, after):
            changed = True
            yield difference_line(each)
        if not changed:
            yield "this event changed no state"

    def _foot(self, columns: int) -> str:
        if self._prompt:
            # The end of what is typed is what one looks at.
            return f"{PROMPTS[self._prompt]}{printable(self.typed)}"[-columns:]
        return printable(self._note) or HELP


def _placed(marks: Mapping[str, int], records: Sequence[RecordedEvent]) -> dict[int, list[str]]:
    """Names by the place of their event, or if that is left out by that of the one before."""
    placed: dict[int, list[str]] = {}
    positions = [each.position for each in records]
    for name, position in marks.items():
        if positions[0] <= position <= positions[-1]:
            placed.setdefault(bisect_right(positions, position) - 1, []).append(name)
    return placed


def _folded(line: str, columns: int) -> list[str]:
    """A line in as many as it needs, the later ones indented."""
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    return textwrap.wrap(line, columns, subsequent_indent=indent, drop_whitespace=False) or [""]
