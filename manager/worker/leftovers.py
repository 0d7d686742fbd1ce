"""What former workers left behind without a record: found at start, removed like anything else.

A launch is recorded for as long as anything of it exists, so there is something only if a record
was damaged, or if what was there could not be removed and the worker went. Only what carries an
engine id of this state directory is ours: cgroups of other services of the machine lie beside ours.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from msgspec import Struct

from manager.worker.cgroups import Cgroups
from manager.worker.records import Record

ENGINE_ID: Final = re.compile(r"[0-9a-f]{32}")


class Leftover(Struct, frozen=True, kw_only=True):
    """What is left under one engine id.

    ``engine`` is empty where nothing says whose it was; ``found`` names each trace, for people.
    """

    engine_id: str
    engine: str
    found: tuple[str, ...]


def find_leftovers(
    engines: Path, names: frozenset[str], records: list[Record], cgroups: Cgroups
) -> list[Leftover]:
    """Look for what belongs to no launch on record.

    Args:
        engines: Directory with a directory for each engine's own state.
        names: Engine ids whose records were there, readable or not.
        records: Those that could be read.
        cgroups: Where a launch's cgroups would be.

    Returns:
        One for each engine id, in the order of the ids.
    """
    alive = {record.engine_id for record in records if not record.over}
    owners = dict.fromkeys(names - alive, "")
    owners |= {record.engine_id: record.engine for record in records if record.over}
    states = [each for each in _states(engines) if each[0] not in alive]
    owners |= {engine_id: engine for engine_id, engine, _ in states}
    found = []
    for engine_id, engine in sorted(owners.items()):
        traces = [f"record {engine_id}"] if engine_id in names else []
        traces += [f"{name} state {path.name}" for each, name, path in states if each == engine_id]
        traces += [f"cgroup {path}" for path in cgroups.of_launch(engine_id).existing()]
        found.append(Leftover(engine_id=engine_id, engine=engine, found=tuple(traces)))
    return found


def _states(engines: Path) -> Iterator[tuple[str, str, Path]]:
    """Engine id, engine and path of whatever engines keep; a name may have more than the id."""
    for directory in sorted(engines.iterdir()):
        for path in sorted(directory.iterdir()):
            if match := ENGINE_ID.search(path.name):
                yield match[0], directory.name, path
