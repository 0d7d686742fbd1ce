"""How a service is run: little to import, for whoever only asks or tells."""

from pathlib import Path
from typing import Final

from msgspec import Struct

from manager.domain.request import Permit

AUTO: Final = "auto"
"""In place of an engine's name: the first that works."""

STOP_GRACE_S: Final = 10.0
"""How long a service that is asked to stop goes on with the calls under way."""

SEAL_EVENTS: Final = 64
SEAL_SECONDS: Final = 10.0
"""Events, and the age of one, after which a service seals its log."""

SNAPSHOT_EVENTS: Final = 20_000
"""Events after which a snapshot is written: a fifth of a second to fold."""


class Service(Struct, frozen=True, kw_only=True):
    """How a service is run.

    Attributes:
        root: Its state directory.
        engine: An engine's name, or ``auto``.
        stop_grace_s: How long calls under way may go on after the service was asked to stop.
        stop_containers: Whether containers end with the service; they get ``stop_grace_s``, too.
        key: The key that seals the log, made if it is missing; absent: SEAL_KEY_FILE in ``root``.
        seal_events: The log is sealed when so many events came,
        seal_seconds: or when the oldest unsealed one has waited so long, and at stop.
        runsc_root: Directory that gVisor's `runsc` can be given as its `--root`; absent: none.
        ignore_namespace_paths: A spec that names a network, IPC or UTS namespace by a path runs in
            the sandbox's own namespace; otherwise it is refused.
        permits: What reaches the host and is refused otherwise: hooks, paths of namespaces.
        engine_paths: Programs to use instead of those in PATH, by engine, or ``criu``; a worker
            that is found at work already keeps its own.
        snapshot_events: A snapshot, which makes the next start fast, is written when so many came.
    """

    root: Path
    engine: str = AUTO
    stop_grace_s: float = STOP_GRACE_S
    stop_containers: bool = False
    key: Path | None = None
    seal_events: int = SEAL_EVENTS
    seal_seconds: float = SEAL_SECONDS
    runsc_root: Path | None = None
    snapshot_events: int = SNAPSHOT_EVENTS
    ignore_namespace_paths: bool = False
    permits: tuple[Permit, ...] = ()
    engine_paths: dict[str, Path] = {}
