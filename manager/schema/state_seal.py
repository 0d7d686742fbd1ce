"""What a checkpoint says of the state that its events lead to: one line of the signed note.

::

    sandtrail-state-v1 1041 9f86…0a08 5e884898da280471 2c26b46b68ffc68f
                       |    |         |                which program folded: fold_fingerprint
                       |    |         what shape its states have
                       |    digest of all sandboxes that live
                       position: the state after that event

The digest is over MessagePack of the fold, so only a program with states of that shape can compute
it. If it has the digest, its fold is the sealed one; if not, the two fingerprints tell whether that
is a surprise.
"""

import hashlib
import re
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, Final, Self

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from eventstore import NoteMalformed
from manager.domain.state import Container
from manager.schema.node_fold import FoldedSandbox
from manager.schema.node_snapshot import fold_fingerprint

TAG: Final = "sandtrail-state-v1"
LINE: Final = re.compile(TAG + r" ([1-9][0-9]{0,18}) ([0-9a-f]{64}) ([0-9a-f]{16}) ([0-9a-f]{16})")
FINGERPRINT_CHARS: Final = 16
SEPARATOR: Final = b"\n"
_encode: Final = msgspec.msgpack.Encoder(order="deterministic").encode


class StateSeal(Struct, frozen=True, kw_only=True):
    """A state that was sealed.

    Attributes:
        position: Of the last event that is folded into it.
        digest: Of the state, 64 hexadecimal digits.
        shape: Which members states have, 16 hexadecimal digits.
        code: Which program folded, 16 hexadecimal digits.
    """

    position: int
    digest: str
    shape: str
    code: str

    def line(self) -> str:
        """The line, without its line feed."""
        return f"{TAG} {self.position} {self.digest} {self.shape} {self.code}"

    @classmethod
    def parse(cls, line: str) -> Self | None:
        """Read a line of a checkpoint; ``None`` if it is about something else.

        Raises:
            NoteMalformed: It begins as such a line does, and goes on otherwise.
        """
        if not line.startswith(TAG):
            return None
        found = LINE.fullmatch(line)
        if found is None:
            raise NoteMalformed(f"{line[:64]!r} is no state of a log")
        position, digest, shape, code = found.groups()
        return cls(position=int(position), digest=digest, shape=shape, code=code)


def seal_state(position: int, digest: bytes) -> StateSeal:
    """What this program seals."""
    return StateSeal(
        position=position, digest=digest.hex(), shape=state_shape(), code=folding_code()
    )


def folding_code() -> str:
    """Which program this is, as far as the fold goes."""
    return fold_fingerprint()[:FINGERPRINT_CHARS]


@cache
def state_shape() -> str:
    """Which members the states of this program have; what is said about them does not count."""
    schema = _without_words(msgspec.json.schema(FoldedSandbox))
    return hashlib.sha256(msgspec.json.encode(schema)).hexdigest()[:FINGERPRINT_CHARS]


def _without_words(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {
            key: _without_words(value)
            for key, value in schema.items()
            if not (key == "description" and isinstance(value, str))
        }
    return [_without_words(each) for each in schema] if isinstance(schema, list) else schema


class _Known(Struct, frozen=True):
    """What was digested of a sandbox; ``line`` is what goes into the digest of all."""

    folded: FoldedSandbox
    line: bytes
    containers: dict[str, tuple[Container, bytes]]


class StateDigests:
    """Digests of states that follow one another: what has not changed is not looked at again.

    States are immutable and share what they have in common, so a container that is the same object
    as the last time is the same container.

    Args:
        give_way: Called after each sandbox that is digested: to let other threads have their turn,
            which else would wait for the interpreter's switch interval.
    """

    def __init__(self, give_way: Callable[[], object] | None = None) -> None:
        self._give_way = give_way
        self._known: dict[str, _Known] = {}

    def of(self, live: Iterable[tuple[str, FoldedSandbox]]) -> bytes:
        """The digest of all sandboxes that live, 32 bytes."""
        known: dict[str, _Known] = {}
        for sandbox_id, folded in live:
            found = self._known.get(sandbox_id)
            if found is None or found.folded is not folded:
                found = _digest(sandbox_id, folded, {} if found is None else found.containers)
                if self._give_way is not None:
                    self._give_way()
            known[sandbox_id] = found
        self._known = known
        lines = (known[sandbox_id].line for sandbox_id in sorted(known))
        return hashlib.sha256(TAG.encode() + SEPARATOR + b"".join(lines)).digest()


def _digest(
    sandbox_id: str, folded: FoldedSandbox, before: dict[str, tuple[Container, bytes]]
) -> _Known:
    containers: dict[str, tuple[Container, bytes]] = {}
    digests: dict[str, bytes] = {}
    for cid, container in folded.state.containers.items():
        known = before.get(cid)
        if known is None or known[0] is not container:
            known = (container, hashlib.sha256(_encode(container)).digest())
        containers[cid] = known
        digests[cid] = known[1]
    rest = replace(folded, state=replace(folded.state, containers={}))
    digest = hashlib.sha256(_encode((rest, digests))).digest()
    return _Known(folded, _encode((sandbox_id, digest)), containers)
