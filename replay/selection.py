"""Which events of a log are asked for."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import msgspec
from msgspec import Struct

from eventstore import RecordedEvent
from manager.schema.node_fold import STREAM_PREFIX
from replay.outcome import fits, outcome_of, tags_with

PATTERN_CHARS_MAX: Final = 1000
_decode: Final = msgspec.json.Decoder(dict[str, Any]).decode


class Selection(Struct, frozen=True, kw_only=True):
    """Filters; an event fits if it fits every one that is given.

    Attributes:
        sandbox: Id of the sandbox whose events they are; empty for those of all, and of the node.
        container: Id of the container that they concern, or its name in a restore's validation.
        types: Types that they may have.
        outcome: ``ok``, ``refused``, ``failed``, ``mismatch``, or ``fail`` for all but the first.
        uid: The user who asked for it.
        pattern: A regular expression (:mod:`re`) that the payload's JSON has to have in it.
        where: A question (:func:`replay.expression.parse_expression`) whose answer has to be yes.
        causes: Positions of events which they, at whatever remove, were caused by.
    """

    sandbox: str = ""
    container: str = ""
    types: tuple[str, ...] = ()
    outcome: str = ""
    uid: int | None = None
    pattern: str = ""
    where: Callable[[Mapping[str, Any]], bool] | None = None
    causes: tuple[int, ...] = ()

    @property
    def stream(self) -> str | None:
        """The one stream that has all of them, if there is one."""
        return STREAM_PREFIX + self.sandbox if self.sandbox else None

    @property
    def narrowed_types(self) -> tuple[str, ...]:
        """Types that an event must have to fit; empty if it may have any."""
        if not self.outcome:
            return self.types
        able = tags_with(self.outcome)
        return tuple(tag for tag in self.types if tag in able) if self.types else able


class Matcher:
    """Looks at events of a log, the oldest first if ``causes`` are given."""

    def __init__(self, selection: Selection) -> None:
        self._selection = selection
        self._pattern = re.compile(selection.pattern) if selection.pattern else None
        self._caused = set(selection.causes)

    def fits_any(self, record: RecordedEvent) -> bool:
        """Whether an event, of whatever stream, is asked for."""
        return self._selection.stream in {None, record.stream} and self.fits(record)

    def fits(self, record: RecordedEvent) -> bool:
        """Whether an event of the selection's stream is asked for."""
        asked = self._selection
        if asked.types and record.type not in asked.types:
            return False
        if asked.uid is not None and (record.actor is None or record.actor.uid != asked.uid):
            return False
        if asked.causes and not self._is_caused(record):
            return False
        if self._pattern is not None and not self._pattern.search(bytes(record.data).decode()):
            return False
        if not self._payload_fits(record):
            return False
        return asked.where is None or asked.where(event_subject(record))

    def _payload_fits(self, record: RecordedEvent) -> bool:
        asked = self._selection
        if not asked.container and not asked.outcome:
            return True
        data = payload(record)
        if asked.container and not concerns(record, data, asked.container):
            return False
        return not asked.outcome or fits(outcome_of(record.type, data), asked.outcome)

    def _is_caused(self, record: RecordedEvent) -> bool:
        if record.causation not in self._caused:
            return False
        self._caused.add(record.position)
        return True


def payload(record: RecordedEvent) -> dict[str, Any]:
    """An event's payload as JSON has it."""
    return _decode(record.data)


def sandbox_of(record: RecordedEvent) -> str:
    """The sandbox that an event is of, empty for the node's own."""
    if record.stream.startswith(STREAM_PREFIX):
        return record.stream.removeprefix(STREAM_PREFIX)
    return ""


def container_of(record: RecordedEvent, data: dict[str, Any]) -> str:
    """The container that an event concerns; for the sandbox's own events its root."""
    named = data.get("container")
    if named:
        return str(named)
    return sandbox_of(record) if record.type.startswith("sandbox.") else ""


def concerns(record: RecordedEvent, data: dict[str, Any], container: str) -> bool:
    """Whether an event is of a container, or says in what that one differs from its image."""
    return container_of(record, data) == container or any(
        each["container"] == container for each in data.get("mismatches") or ()
    )


def event_subject(record: RecordedEvent) -> dict[str, Any]:
    """An event as an expression sees it: its payload's members beside those of its envelope."""
    data = payload(record)
    return {
        **data,
        "position": record.position,
        "type": record.type,
        "sandbox": sandbox_of(record),
        "container": container_of(record, data),
        "outcome": outcome_of(record.type, data),
        "correlation": record.correlation_id,
        "uid": None if record.actor is None else record.actor.uid,
    }


def known_types(given: Iterable[str], known: Iterable[str]) -> list[str]:
    """Those of the given types that no event can have."""
    return sorted(set(given) - set(known))
