"""When a log is sealed, and by whom."""

from typing import Final

from msgspec import Struct

from eventstore.note import Signer

SEAL_EVENTS: Final = 64
"""Events after which a log is sealed, unless it is told otherwise."""
SEAL_SECONDS: Final = 10.0
"""How long an event may be without a seal, unless it is told otherwise."""


class SealPolicy(Struct, frozen=True, kw_only=True):
    """Seal with this key, when so many events came or the first of them is so old, and at close.

    Attributes:
        signer: The key; its name is the log's origin in the checkpoints.
        events: 1 or more.
        seconds: More than 0.
    """

    signer: Signer
    events: int = SEAL_EVENTS
    seconds: float = SEAL_SECONDS

    def __post_init__(self) -> None:
        if self.events < 1 or not self.seconds > 0:
            raise ValueError(
                f"cannot seal every {self.events} events and {self.seconds} s: use 1 event or "
                "more, and more than 0 seconds"
            )
