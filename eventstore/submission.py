"""One append, checked against every limit before it may wait for its turn."""

from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import Raw, Struct

from eventstore import limits
from eventstore.envelope import Document, NewEvent
from eventstore.errors import EventTooLarge, InvalidAppend, LimitExceeded
from eventstore.expected_version import ExpectedVersion

_encode: Final = msgspec.json.Encoder().encode
_skim: Final = msgspec.json.Decoder(Raw).decode


class Submission(Struct, frozen=True, kw_only=True, gc=False):
    """An append that is fit to be stored.

    Attributes:
        stream: Where to.
        events: 1 to APPEND_EVENTS_MAX, oldest first.
        payloads: Of each event, as it is stored.
        expected: The demand on the stream's version.
        size_bytes: What it weighs in the queue, at most APPEND_BYTES_MAX.
    """

    stream: str
    events: tuple[NewEvent, ...]
    payloads: tuple[bytes, ...]
    expected: ExpectedVersion
    size_bytes: int


def prepare(stream: str, events: Sequence[NewEvent], expected: ExpectedVersion) -> Submission:
    """Check an append and encode what is not encoded yet.

    Raises:
        LimitExceeded: Something is too large or too many.
        InvalidAppend: There is nothing to append, or a name, id or payload cannot be stored.
    """
    if not events:
        raise InvalidAppend("an append needs at least one event")
    if len(events) > limits.APPEND_EVENTS_MAX:
        raise LimitExceeded("events in one append", len(events), limits.APPEND_EVENTS_MAX)
    check_name("stream name", stream, limits.STREAM_NAME_CHARS_MAX)
    payloads = []
    size_bytes = limits.EVENT_OVERHEAD_BYTES * len(events)
    for event in events:
        _check_envelope(event)
        if event.documents:
            size_bytes += _weigh_documents(event.documents)
        payload = _payload(event)
        payloads.append(payload)
        size_bytes += len(payload)
    if len(events) > 1 and len({event.event_id for event in events}) < len(events):
        raise InvalidAppend("two events of one append have the same event id")
    if size_bytes > limits.APPEND_BYTES_MAX:
        raise LimitExceeded("bytes in one append", size_bytes, limits.APPEND_BYTES_MAX)
    return Submission(
        stream=stream,
        events=tuple(events),
        payloads=tuple(payloads),
        expected=expected,
        size_bytes=size_bytes,
    )


def _check_envelope(event: NewEvent) -> None:
    check_name("event type", event.type, limits.EVENT_TYPE_CHARS_MAX)
    check_name("event id", event.event_id, limits.EVENT_ID_CHARS_MAX)
    if event.correlation_id is not None:
        check_name("correlation id", event.correlation_id, limits.CORRELATION_ID_CHARS_MAX)
    if event.causation is not None and not 0 < event.causation <= limits.POSITION_MAX:
        raise InvalidAppend(f"causation must be a position, 1 or more, not {event.causation}")


def check_name(what: str, text: str, chars_max: int) -> None:
    """Refuse a name that is empty, too long, or not readable where it is printed.

    Raises:
        InvalidAppend: As said; LimitExceeded if it is too long.
    """
    if len(text) > chars_max:
        raise LimitExceeded(f"characters of the {what}", len(text), chars_max)
    if not text or not text.isprintable():
        raise InvalidAppend(f"the {what} must be printable characters, at least one: {text!r}")


def _weigh_documents(documents: Sequence[Document]) -> int:
    if len(documents) > limits.EVENT_DOCUMENTS_MAX:
        raise LimitExceeded("documents of one event", len(documents), limits.EVENT_DOCUMENTS_MAX)
    size_bytes = 0
    for document in documents:
        check_name("media type", document.media_type, limits.MEDIA_TYPE_CHARS_MAX)
        size = len(document.body)
        if size > limits.DOCUMENT_BYTES_MAX:
            raise EventTooLarge("bytes of a document", size, limits.DOCUMENT_BYTES_MAX)
        size_bytes += size
    return size_bytes


def _payload(event: NewEvent) -> bytes:
    try:
        data = bytes(event.data) if isinstance(event.data, (bytes, Raw)) else _encode(event.data)
        if len(data) > limits.EVENT_DATA_BYTES_MAX:
            raise EventTooLarge("bytes of a payload", len(data), limits.EVENT_DATA_BYTES_MAX)
        _skim(data)
        if not data.isascii():
            data.decode()
    except (msgspec.MsgspecError, UnicodeError, TypeError, RecursionError) as error:
        raise InvalidAppend(f"the payload of {event.type!r} is not JSON text: {error}") from error
    return data
