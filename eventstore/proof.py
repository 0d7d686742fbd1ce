"""What shows of some events, to somebody without the log, that they are in it as they are told."""

from msgspec import Struct

from eventstore.canonical import encode_fields, hash_leaf
from eventstore.envelope import Document


class ProvedEvent(Struct, frozen=True, kw_only=True):
    """An event with its columns as they are stored; see ``docs/log-format.md``.

    Attributes:
        position: Place in the whole log.
        stream: The stream's name.
        version: Place in its stream.
        type: The tag.
        event_id: Unique in the log.
        recorded_at_ns: Wall clock of the writer, nanoseconds since 1970.
        correlation_id: The request that it belongs to.
        causation: Position of the event that led to it.
        actor: Who asked: JSON text.
        data: The payload: JSON text.
        documents: Digests, in order.
    """

    position: int
    stream: str
    version: int
    type: str
    event_id: str
    recorded_at_ns: int
    correlation_id: str | None
    causation: int | None
    actor: str | None
    data: str
    documents: tuple[str, ...]

    def leaf_hash(self) -> bytes:
        """The leaf hash that the columns give, 32 bytes."""
        columns = (
            self.position, self.stream, self.version, self.type, self.event_id,
            self.recorded_at_ns, self.correlation_id, self.causation, self.actor, self.data,
            *self.documents,
        )  # fmt: skip
        return hash_leaf(
            encode_fields(None if each is None else str(each).encode() for each in columns)
        )


class Consistency(Struct, frozen=True, kw_only=True):
    """That the proof's tree begins with all leaves of an older checkpoint's.

    Attributes:
        size: Events that the older checkpoint covers.
        hashes: The consistency proof. Source: RFC 6962, section 2.1.2.
    """

    size: int
    hashes: tuple[bytes, ...]


class EventProof(Struct, frozen=True, kw_only=True):
    """Events, and the way from them to a signed checkpoint.

    Attributes:
        events: By position; at least one.
        size: Events that the checkpoint covers.
        hashes: The selection proof, see :mod:`eventstore.merkle`.
        note: The checkpoint, a signed note.
        consistency: If an older checkpoint was given.
        documents: Bodies of the documents that the events name, if they were asked for.
    """

    events: tuple[ProvedEvent, ...]
    size: int
    hashes: tuple[bytes, ...]
    note: str
    consistency: Consistency | None = None
    documents: tuple[Document, ...] = ()
