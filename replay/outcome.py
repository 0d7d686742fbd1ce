"""How an event came out, in one word that a filter can name."""

from typing import Any, Final, Literal, TypeAlias

from manager.schema.events import EVENT_TYPES
from manager.schema.node_events import NODE_EVENT_TYPES

Outcome: TypeAlias = Literal["ok", "refused", "failed", "mismatch", ""]

OUTCOMES: Final = ("ok", "refused", "failed", "mismatch")
FAIL: Final = "fail"
"""What a filter calls everything that is not as its caller wished."""

_PENDING: Final = ("_requested", "_accepted", ".begun", "_translated")
_TOLD: Final = {"container.exited", "process.exited", "restore.validated", "container.destroyed"}
"""Types of which the payload tells how it came out."""


def outcome_of(tag: str, data: dict[str, Any]) -> Outcome:
    """The outcome that an event tells of; empty if it only announces something.

    An exit is ``failed`` unless its code is 0. A validation of a restore is a ``mismatch`` if specs
    differ, whatever the policy made of that.
    """
    match tag:
        case "container.exited" | "process.exited":
            ended = data.get("exit") or {}
            return "ok" if ended.get("type") == "exited" and not ended.get("code") else "failed"
        case "restore.validated":
            return "mismatch" if data.get("verdict") == "differs" else "ok"
        case "container.destroyed":
            return "failed" if data.get("leftovers") else "ok"
    return _by_tag(tag)


def _by_tag(tag: str) -> Outcome:
    if tag.endswith(("_rejected", ".rejected")):
        return "refused"
    if tag.endswith(("_failed", ".lost", "_lost")):
        return "failed"
    return "" if tag.endswith(_PENDING) else "ok"


def fits(outcome: Outcome, wanted: str) -> bool:
    """Whether an outcome is what a filter names, which may be :data:`FAIL`."""
    return outcome in {"refused", "failed", "mismatch"} if wanted == FAIL else outcome == wanted


def tags_with(wanted: str) -> tuple[str, ...]:
    """The types of which some event can have an outcome that a filter names."""
    tags = [*EVENT_TYPES, *NODE_EVENT_TYPES]
    return tuple(sorted({tag for tag in tags if tag in _TOLD or fits(_by_tag(tag), wanted)}))
