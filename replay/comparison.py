"""The states at two points, compared."""

from typing import Any

from manager.schema.past import AsOf
from manager.schema.summary import inspection
from replay.difference import Difference, differences
from replay.trail import Trail


async def diff(trail: Trail, before: str, after: str) -> list[Difference]:
    """How the sandboxes at two points differ, field by field.

    Raises:
        WhenError: There is no such point, or it cannot be told.
        EventStoreError: The log cannot be read.
        EventFormatError: An event is of a newer program, or damaged; the text names it.
    """
    first, _ = await states(trail, before)
    second, _ = await states(trail, after)
    return list(differences(first, second))


async def states(trail: Trail, when: str) -> tuple[dict[str, dict[str, Any]], AsOf]:
    """All sandboxes at a point by id, as ``inspect`` shows them; raises as :func:`diff`."""
    fold, moment = await trail.at(when)
    return {name: inspection(folded.state) for name, folded in fold.live.items()}, moment
