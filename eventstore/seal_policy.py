"""When a log is sealed, and by whom."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeAlias

from msgspec import Struct

from eventstore.note import Signer

SEAL_EVENTS: Final = 64
"""Events after which a log is sealed, unless it is told otherwise."""
SEAL_SECONDS: Final = 10.0
"""How long an event may be without a seal, unless it is told otherwise."""

Extensions: TypeAlias = Callable[[bool], Awaitable[Sequence[str]]]
"""Called before a seal, told whether it is the last one of a log that closes.

What it returns goes into the note as further lines: not empty, without control characters, and
about nothing but events that are stored by now. It must not raise; no append waits for it.
"""


async def no_extensions(_: bool) -> Sequence[str]:
    """Seal the tree and nothing beside it."""
    return ()


class SealPolicy(Struct, frozen=True, kw_only=True):
    """Seal with this key, when so many events came or the first of them is so old, and at close.

    Attributes:
        signer: The key; its name is the log's origin in the checkpoints.
        events: 1 or more.
        seconds: More than 0.
        extensions: What is said and signed beside the tree.
    """

    signer: Signer
    events: int = SEAL_EVENTS
    seconds: float = SEAL_SECONDS
    extensions: Extensions = no_extensions

    def __post_init__(self) -> None:
        if self.events < 1 or not self.seconds > 0:
            raise ValueError(
                f"cannot seal every {self.events} events and {self.seconds} s: use 1 event or "
                "more, and more than 0 seconds"
            )
