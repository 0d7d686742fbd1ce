"""Facts about the node itself: the stream ``node`` of the log.

It also holds the refusals of creates whose id could not name a stream of its own.
"""

from collections.abc import Mapping
from typing import Final, TypeAlias

from msgspec import Struct

from manager.domain.events import SandboxCreateRejected
from manager.schema.codec import EventCodec
from manager.schema.worker import EngineReport, PidIdentity


class ManagerStarted(Struct, frozen=True, kw_only=True, tag="manager.started"):
    """A manager has opened the log for writing. ``boot_id`` tells reboots apart."""

    version: str
    pid: int
    boot_id: str
    kernel: str


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
    """Every sandbox is settled with what the worker knows. All three are lists of launch ids.

    ``adopted`` are known to the worker, ``interrupted`` are starts that never got there, ``lost``
    ran and nobody knows what became of them.
    """

    adopted: tuple[str, ...] = ()
    interrupted: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()


NodeEvent: TypeAlias = (
    ManagerStarted
    | ManagerStopped
    | WorkerStarted
    | WorkerLost
    | RecoveryCompleted
    | SandboxCreateRejected
)
"""Everything that the node's stream may hold."""

_codec: Final[EventCodec[NodeEvent]] = EventCodec(NodeEvent)

NODE_EVENT_TYPES: Final[Mapping[str, type[NodeEvent]]] = _codec.types

encode_node_event = _codec.encode
decode_node_event = _codec.decode
