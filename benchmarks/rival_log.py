"""The PyPI library `eventsourcing`, doing what it is made for, on its own SQLite recorder."""

import os
import time
from pathlib import Path
from typing import Any

try:
    from eventsourcing.application import Application
    from eventsourcing.domain import Aggregate, event
except ImportError:  # a dependency of the bench alone
    Application = None  # type: ignore[assignment, misc]

AVAILABLE = Application is not None
NOTIFICATIONS = 1000

if AVAILABLE:

    class Container(Aggregate):
        """Something that things happen to."""

        def __init__(self) -> None:
            self.count = 0

        @event("Happened")
        def happen(self, cid: str, code: int, source: str) -> None:  # noqa: ARG002 - its payload
            """Count what happened."""
            self.count += 1


def open_rival(path: Path) -> Any:
    """An application with a file of its own."""
    environment = {
        "PERSISTENCE_MODULE": "eventsourcing.sqlite",
        "SQLITE_DBNAME": os.fspath(path),
        "SQLITE_LOCK_TIMEOUT": "10",
    }
    return Application(env=environment)


def save_each(path: Path, count: int) -> list[float]:
    """Save one event at a time; the seconds that each took."""
    application = open_rival(path)
    container = Container()
    application.save(container)
    taken = []
    for _ in range(count):
        container.happen(cid="c1", code=3, source="waitid")
        began = time.perf_counter()
        application.save(container)
        taken.append(time.perf_counter() - began)
    application.close()
    return taken


def save_streams(path: Path, streams: int, events: int) -> list[Any]:
    """Save streams of events, each at once; their ids."""
    application = open_rival(path)
    ids = []
    for _ in range(streams):
        container = Container()
        for _ in range(events - 1):
            container.happen(cid="c1", code=3, source="waitid")
        application.save(container)
        ids.append(container.id)
    application.close()
    return ids


def read_notifications(path: Path) -> int:
    """Decode and count every event in the order of the log, as its projections do."""
    application = open_rival(path)
    seen, start = 0, 1
    while chunk := application.recorder.select_notifications(start=start, limit=NOTIFICATIONS):
        for notification in chunk:
            seen += application.mapper.to_domain_event(notification) is not None
        start = chunk[-1].id + 1
    application.close()
    return seen


def load_streams(path: Path, ids: list[Any]) -> int:
    """Rebuild each aggregate from its stream."""
    application = open_rival(path)
    total = sum(application.repository.get(each).count for each in ids)
    application.close()
    return total
