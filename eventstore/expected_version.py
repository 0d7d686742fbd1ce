"""What an append may demand of its stream, and the rule that decides it."""

from enum import Enum
from typing import Final, TypeAlias

from msgspec import Struct


class Exactly(Struct, frozen=True):
    """The stream has exactly this many events; 0 means that it has none."""

    version: int


class StreamState(Enum):
    """Demands that name no number. Use the constants below."""

    NO_STREAM = "none"
    STREAM_EXISTS = "at least one"
    ANY = "any number"


NO_STREAM: Final = StreamState.NO_STREAM
"""The stream has no events yet."""
STREAM_EXISTS: Final = StreamState.STREAM_EXISTS
"""The stream has at least one event."""
ANY: Final = StreamState.ANY
"""No demand: nothing that others append can make this append fail."""

ExpectedVersion: TypeAlias = Exactly | StreamState


def matches(expected: ExpectedVersion, actual: int) -> bool:
    """Whether a stream of ``actual`` events meets the demand."""
    if expected is ANY:
        return True
    if expected is NO_STREAM:
        return actual == 0
    if isinstance(expected, Exactly):
        return actual == expected.version
    return actual > 0


def describe(expected: ExpectedVersion) -> str:
    """Say the demand in words."""
    match expected:
        case Exactly(version=version):
            return f"exactly {version}"
        case StreamState():
            return expected.value
