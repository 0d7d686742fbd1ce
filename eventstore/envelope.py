"""What goes into the log and what comes out of it."""

import hashlib
from collections.abc import Mapping
from functools import cached_property
from typing import Final

from msgspec import Raw, Struct, field

from eventstore.event_id import new_event_id

DIGEST_PREFIX: Final = "sha256:"


class Actor(Struct, frozen=True, kw_only=True):
    """The process at the other end of a socket, as the kernel vouches for it.

    Source: unix(7), SO_PEERCRED.
    """

    uid: int
    gid: int
    pid: int


class Document(Struct, frozen=True, kw_only=True, dict=True):
    """A body that events refer to by its digest; the log keeps each body once.

    Attributes:
        media_type: As of RFC 6838. The one given first stays.
        body: 0 to DOCUMENT_BYTES_MAX bytes.
    """

    media_type: str
    body: bytes

    @cached_property
    def digest(self) -> str:
        """``sha256:`` and the 64 lower-case hexadecimal digits of the body's SHA-256."""
        return DIGEST_PREFIX + hashlib.sha256(self.body).hexdigest()


class NewEvent(Struct, frozen=True, kw_only=True):
    """An event to be appended.

    Attributes:
        type: Explicit tag, 1 to EVENT_TYPE_CHARS_MAX printable characters.
        data: The payload: JSON text that the caller encoded (kept byte for byte), or a mapping
            that becomes JSON. 1 to EVENT_DATA_BYTES_MAX bytes.
        event_id: Unique in the log, 1 to EVENT_ID_CHARS_MAX printable characters; a UUIDv7 unless
            the caller needs another. Appending the same ids again returns what was stored first.
        correlation_id: The request that the event belongs to.
        causation: Position of the event that led to this one.
        actor: Who asked.
        documents: Bodies that the payload names by digest; stored in the same transaction.
    """

    type: str
    data: bytes | Raw | Mapping[str, object]
    event_id: str = field(default_factory=new_event_id)
    correlation_id: str | None = None
    causation: int | None = None
    actor: Actor | None = None
    documents: tuple[Document, ...] = ()


class RecordedEvent(Struct, frozen=True, kw_only=True, gc=False):
    """An event as the log has it.

    Attributes:
        position: Place in the whole log: 1, 2, ... without gaps, in the order of commits.
        stream: The stream's name.
        version: Place in its stream: 1, 2, ... without gaps.
        type: The tag.
        event_id: As the caller gave it.
        recorded_at_ns: Wall clock when it was stored, nanoseconds since 1970. Informational: clocks
            jump, positions do not.
        correlation_id: As the caller gave it.
        causation: As the caller gave it.
        actor: As the caller gave it.
        data: The payload, JSON text in UTF-8.
        documents: Digests of the documents that were appended with the event.
        leaf_hash: 32 bytes; the RFC 6962 leaf hash of all of the above, see ``docs/log-format.md``.
    """

    position: int
    stream: str
    version: int
    type: str
    event_id: str
    recorded_at_ns: int
    correlation_id: str | None
    causation: int | None
    actor: Actor | None
    data: bytes
    documents: tuple[str, ...]
    leaf_hash: bytes
