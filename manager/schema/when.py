"""Points of a log as people write them: by position, by event or by time. One grammar everywhere.

::

    #1234  1234          a position
    head  head~10        the last event, or some before it
    mark:NAME            a point that was given this name: `sandtrail mark`
    evt:ID               an event by its id
    now  today  yesterday
    14:05  14:05:09      today at that time
    2026-11-23           the beginning of that day
    2026-11-23T14:05Z    RFC 3339, to the nanosecond; no zone: the local one
    -90m  2h30m  3 days ago
    @1763900000.123      seconds since 1970

What can be read in two ways is refused with the readings.

For programs: parsing knows no log; whether there is such a point, :mod:`manager.schema.moment`
says.
"""

import re
from datetime import datetime, timedelta, tzinfo
from typing import Final, TypeAlias

from msgspec import Struct

NS_PER_S: Final = 1_000_000_000
POSITION_DIGITS_MAX: Final = 18
HELP: Final = (
    "want a position (#1234, head~10), a mark (mark:NAME), an event (evt:ID) or a time "
    "(2026-11-23T14:05Z, 14:05, yesterday, 2h30m ago, @1763900000)"
)
UNITS_NS: Final = {
    "ns": 1,
    "us": 1_000,
    "ms": 1_000_000,
    "s": NS_PER_S,
    "m": 60 * NS_PER_S,
    "h": 3600 * NS_PER_S,
    "d": 86_400 * NS_PER_S,
    "w": 7 * 86_400 * NS_PER_S,
}
WORDS: Final = {
    "sec": "s", "second": "s", "min": "m", "minute": "m", "hour": "h", "day": "d", "week": "w"
}  # fmt: skip
POSITION: Final = re.compile(r"(#?)([0-9]+)")
HEAD: Final = re.compile(r"head(?:~([0-9]{1,18}))?")
EPOCH: Final = re.compile(r"@([0-9]{1,11})(?:\.([0-9]{1,9}))?")
AGO: Final = re.compile(r"-?((?:[0-9]{1,12} ?[a-z]+ ?)+?)(?: ?ago)?")
AMOUNT: Final = re.compile(r"([0-9]{1,12}) ?([a-z]+)")
DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
CLOCK: Final = re.compile(r"([0-9]{1,2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]{1,9}))?)?")
STAMP: Final = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2})(?::([0-9]{2})(?:[.,]([0-9]{1,9}))?)?"
    r"([Zz]|[+-][0-9]{2}:?[0-9]{2})?"
)


class WhenError(ValueError):
    """A point of a log cannot be told from its text; the message says why, and what would do."""


class WhenAmbiguous(WhenError):  # noqa: N818 - nothing is broken
    """A text can be read in more than one way. Write one of ``readings`` instead."""

    def __init__(self, text: str, readings: tuple[str, ...]) -> None:
        super().__init__(f"{text!r} can be read as {' or as '.join(readings)}: write one of these")
        self.readings = readings


class Position(Struct, frozen=True):
    """The event at a position; 0 is the empty log before the first."""

    position: int


class Head(Struct, frozen=True):
    """The event that is ``back`` before the last one."""

    back: int = 0


class EventId(Struct, frozen=True):
    """The event of that id."""

    event_id: str


class MarkName(Struct, frozen=True):
    """The point that was given that name."""

    name: str


class Instant(Struct, frozen=True):
    """A time, in nanoseconds since 1970; ``day`` if it was given as a day, which is its beginning.

    A window until a day ends before it, one until a time has that in it.
    """

    at_ns: int
    day: bool = False


When: TypeAlias = Position | Head | EventId | MarkName | Instant


def parse_when(text: str, *, now_ns: int, zone: tzinfo | None = None) -> When:
    """Read a point of a log.

    Args:
        text: As a person wrote it.
        now_ns: What "now" is.
        zone: The zone of times that name none; the machine's if absent.

    Raises:
        WhenAmbiguous: It has two readings, which the error names.
        WhenError: It has none.
    """
    given = text.strip()
    if found := POSITION.fullmatch(given):
        return _position(given, *found.groups())
    if found := HEAD.fullmatch(given):
        return Head(int(found[1] or 0))
    if given.startswith("evt:") and len(given) > len("evt:"):
        return EventId(given.removeprefix("evt:"))
    if given.startswith("mark:") and len(given) > len("mark:"):
        return MarkName(given.removeprefix("mark:"))
    if found := EPOCH.fullmatch(given):
        return Instant(int(found[1]) * NS_PER_S + _fraction(found[2]))
    instant = _time(given, now_ns, zone)
    if instant is None:
        raise WhenError(f"{text!r} is no point of a log: {HELP}")
    return instant


def _position(text: str, sign: str, digits: str) -> When:
    if len(digits) > POSITION_DIGITS_MAX:
        raise WhenError(f"{text!r}: a position has at most {POSITION_DIGITS_MAX} digits")
    if not sign:
        if len(digits) == 8 and (day := _day(f"{digits[:4]}-{digits[4:6]}-{digits[6:]}")):
            raise WhenAmbiguous(text, (f"#{digits}", f"{day:%Y-%m-%d}"))
        if len(digits) in {10, 13} and digits[0] in "12":
            seconds = digits if len(digits) == 10 else f"{digits[:10]}.{digits[10:]}"
            raise WhenAmbiguous(text, (f"#{digits}", f"@{seconds}"))
    return Position(int(digits))


def _time(text: str, now_ns: int, zone: tzinfo | None) -> Instant | None:
    today = _moment(now_ns, zone).replace(hour=0, minute=0, second=0, microsecond=0)
    if text == "now":
        return Instant(now_ns)
    if text in {"today", "yesterday"}:
        days = 0 if text == "today" else 1
        return Instant(_ns(text, today - timedelta(days=days), zone), day=True)
    if DAY.fullmatch(text):
        day = _day(text)
        return None if day is None else Instant(_ns(text, day, zone), day=True)
    if found := CLOCK.fullmatch(text):
        return _clock(text, today, zone, *found.groups())
    if found := STAMP.fullmatch(text):
        return _stamp(text, zone, *found.groups())
    if found := AGO.fullmatch(text.lower()):
        back = _duration_ns(found[1])
        return None if back is None else Instant(max(0, now_ns - back))
    return None


def _clock(
    text: str, today: datetime, zone: tzinfo | None, hour: str, minute: str, *rest: str | None
) -> Instant | None:
    second, fraction = rest
    try:
        moment = today.replace(hour=int(hour), minute=int(minute), second=int(second or 0))
    except ValueError:
        return None
    return Instant(_ns(text, moment, zone) + _fraction(fraction))


def _stamp(
    text: str, zone: tzinfo | None, day: str, minute: str, *rest: str | None
) -> Instant | None:
    second, fraction, offset = rest
    try:
        moment = datetime.fromisoformat(f"{day}T{minute}:{second or '00'}{(offset or '').upper()}")
    except ValueError:
        return None
    if offset:
        return Instant(round(moment.timestamp()) * NS_PER_S + _fraction(fraction))
    return Instant(_ns(text, moment, zone) + _fraction(fraction))


def _day(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(f"{text}T00:00:00")
    except ValueError:
        return None


def _moment(at_ns: int, zone: tzinfo | None) -> datetime:
    """Local wall time, without a zone."""
    return datetime.fromtimestamp(at_ns // NS_PER_S, zone).replace(tzinfo=None)


def _ns(text: str, moment: datetime, zone: tzinfo | None) -> int:
    """The one time at which the clocks of a zone show ``moment`` (full seconds).

    Raises:
        WhenError: There is none, or there are two: the clocks were changed.
    """
    readings = []
    for fold in (0, 1):
        local = moment.replace(fold=fold)
        seconds = round((local if zone is None else local.replace(tzinfo=zone)).timestamp())
        if _moment(seconds * NS_PER_S, zone) == moment:
            readings.append(seconds)
    match sorted(set(readings)):
        case [seconds]:
            return seconds * NS_PER_S
        case [first, second]:
            raise WhenAmbiguous(text, tuple(f"@{each}" for each in (first, second)))
        case _:
            raise WhenError(f"{text!r} is no local time: the clocks skipped it; give a zone")


def _fraction(digits: str | None) -> int:
    return int((digits or "").ljust(9, "0"))


def _duration_ns(text: str) -> int | None:
    total = 0
    for amount, word in AMOUNT.findall(text):
        unit = WORDS.get(word.removesuffix("s"), word)
        if unit not in UNITS_NS:
            return None
        total += int(amount) * UNITS_NS[unit]
    return total
