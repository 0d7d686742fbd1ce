"""What a verification looks at and what it says."""

from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from typing import Final, Protocol, TypeAlias

from msgspec import Struct

LOWEST: Final = -(2**63)
"""Before every position that a damaged file may have."""


class Outcome(Enum):
    """What one layer of a verification found."""

    PASS = "PASS"
    FAIL = "FAIL"
    SKIP = "SKIP"
    INFO = "INFO"


class Verdict(Enum):
    """What all layers together say."""

    INTACT = "intact"
    BROKEN = "broken"
    INCONCLUSIVE = "inconclusive"


class Finding(Struct, frozen=True, kw_only=True):
    """What one layer says.

    Attributes:
        layer: ``file``, ``sequence``, ``content``, ``tree``, ``signature``, ``history``, ``tail``;
            ``complete`` if the file may be less than the log, ``range`` if only some of it was
            looked at.
        outcome: PASS: checked and right. FAIL: proven wrong. SKIP: could not be checked, which
            leaves the verdict open unless the layer is ``history``. INFO: to be known.
        text: One line for people.
        first_bad: Lowest position at which something is wrong, if that can be told.
    """

    layer: str
    outcome: Outcome
    text: str
    first_bad: int | None = None


class Verification(Struct, frozen=True, kw_only=True):
    """The result of :func:`eventstore.verify_log`.

    Attributes:
        findings: One for each layer, in order.
        head: Last position that was looked at.
        first: First position that was.
        sealed: Positions up to this one are covered by a checkpoint of a trusted key; 0 for none.
        unproven: What the verification does not show, one sentence each; never empty.
    """

    findings: tuple[Finding, ...]
    head: int
    sealed: int
    unproven: tuple[str, ...]
    first: int = 1

    @property
    def verdict(self) -> Verdict:
        """BROKEN if any layer failed; INTACT if all was checked that needs no outside help."""
        outcomes = {each.layer: each.outcome for each in self.findings}
        if Outcome.FAIL in outcomes.values():
            return Verdict.BROKEN
        outcomes.pop("history", None)
        return Verdict.INCONCLUSIVE if Outcome.SKIP in outcomes.values() else Verdict.INTACT

    @property
    def first_bad(self) -> int | None:
        """Lowest position at which something is wrong, if that can be told."""
        return min((each.first_bad for each in self.findings if each.first_bad), default=None)


class StoredEvent(Struct, frozen=True, gc=False):
    """One row as it is stored, whether or not it makes sense.

    Attributes:
        position: Its position.
        fields: The fields of the canonical bytes, without document digests.
        documents: The digests as stored, JSON.
        leaf_hash: As stored.
    """

    position: int
    fields: tuple[bytes | None, ...]
    documents: bytes | None
    leaf_hash: object


class StoredCheckpoint(Struct, frozen=True):
    """One row of ``checkpoints`` as it is stored."""

    size: int
    root: object
    peaks: object
    note: bytes


class Evidence(Protocol):
    """A log's file, to be looked at without trusting it."""

    def problems(self) -> Sequence[str]:
        """What is wrong with the file as a database and with its schema."""
        ...

    def newest_checkpoint(self) -> int:
        """The size of the newest checkpoint, 0 if there is none."""
        ...

    def head(self) -> int:
        """The highest position."""
        ...

    def events(self, until: int, after: int = LOWEST) -> Iterator[StoredEvent]:
        """All events after a position and up to another, in order."""
        ...

    def checkpoints(self, until: int, after: int = LOWEST) -> Iterator[StoredCheckpoint]:
        """All checkpoints over one size and up to another, in order."""
        ...

    def checkpoint_before(self, position: int) -> StoredCheckpoint | None:
        """The newest checkpoint that does not cover a position."""
        ...

    def checkpoint_from(self, position: int) -> StoredCheckpoint | None:
        """The oldest checkpoint that covers a position."""
        ...

    def versions(self, until: int) -> Iterator[tuple[int, int, int]]:
        """Stream, version and position of all events up to one, by stream and version."""
        ...

    def documents(self) -> Iterator[tuple[str, bytes]]:
        """Digest and body of all documents."""
        ...

    def document(self, digest: str) -> bytes | None:
        """The body of a document; None if there is no such document."""
        ...

    def has_document(self, digest: str) -> bool:
        """Whether there is such a document."""
        ...

    def first_with_document(self, digest: str) -> int | None:
        """The first position that names a document."""
        ...


Progress: TypeAlias = Callable[[int, int], None]
"""Called now and then with the events done and the events to do."""
