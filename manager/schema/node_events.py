"""Facts about the node itself: the stream ``node`` of the log.

It also holds the marks, and the refusals of creates whose id could not name a stream of its own.
"""

from collections.abc import Mapping
from typing import Final, TypeAlias

from msgspec import Struct

from manager.domain.events import SandboxCreateRejected
from manager.domain.mark import MarkAdded, MarkRejected
from manager.domain.request import Permit
from manager.schema.codec import EventCodec
from manager.schema.worker import EngineReport, PidIdentity

NODE_STREAM: Final = "node"


class ManagerStarted(Struct, frozen=True, kw_only=True, tag="manager.started"):
    """A manager has opened the log for writing. ``boot_id`` tells reboots apart.

    ``permits`` is what it was started to permit, see StartRequest.
    """

    version: str
    pid: int
    boot_id: str
    kernel: str
    permits: tuple[Permit, ...] = ()


class ManagerStopped(Struct, frozen=True, kw_only=True, tag="manager.stopped"):
    """The manager ended of its own will; a start that follows a start tells of a crash."""

    reason: str


class WorkerStarted(Struct, frozen=True, kw_only=True, tag="worker.started"):
    """The manager has a worker: a new one, or the old one found again (same identity).

    ``capabilities`` maps a probed kernel facility to the path that is taken.
    """

    identity: PidIdentity
    engines: tuple[EngineReport, ...]
    capabilities: dict[str, str]


class WorkerLost(Struct, frozen=True, kw_only=True, tag="worker.lost"):
    """The connection to the worker has ended."""

    reason: str


class RecoveryCompleted(Struct, frozen=True, kw_only=True, tag="recovery.completed"):
    """Every sandbox is settled with what the worker knows. The first four are lists of launch ids.

    ``adopted`` are known to the worker, ``interrupted`` are starts that never got there, ``lost``
    ran and nobody knows what became of them. ``unknown`` run and were not started, as far as this
    log goes, which was restored or replaced: they are ended. ``removed`` names what former lives of
    the service left behind and nobody needs: engine state, cgroups, records and sockets; what the
    worker found when it started is told again to each manager that finds the same worker.
    ``doubt`` is why what the worker did not know may have happened all the same: then a start that
    it did not know is ``lost``, too, since nobody can tell whether it ever ran.
    """

    adopted: tuple[str, ...] = ()
    interrupted: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    doubt: str = ""


NodeEvent: TypeAlias = (
    ManagerStarted
    | ManagerStopped
    | WorkerStarted
    | WorkerLost
    | RecoveryCompleted
    | MarkAdded
    | MarkRejected
    | SandboxCreateRejected
)
"""Everything that the node's stream may hold."""

_codec: Final[EventCodec[NodeEvent]] = EventCodec(NodeEvent)

NODE_EVENT_TYPES: Final[Mapping[str, type[NodeEvent]]] = _codec.types

encode_node_event = _codec.encode
decode_node_event = _codec.decode
