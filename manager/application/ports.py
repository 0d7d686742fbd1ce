"""What the application needs from the world, one small protocol each."""

from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from msgspec import Struct

from eventstore import EventLog, SnapshotFiles
from manager.domain.payload import LaunchPlan
from manager.domain.request import FdFact, Permit
from manager.schema import worker as w
from manager.schema.image import Image
from manager.urpc.fds import FdBundle, OwnedFd


class Ids(Protocol):
    """Where new ids come from."""

    def new_id(self) -> str:
        """Return an id that never comes again (a UUIDv7, so that ids sort by time)."""
        ...


class Described(Struct, frozen=True, kw_only=True):
    """What is known of donated descriptors.

    ``problem`` is why nothing can be done with them: ``facts`` are then what the kernel knows
    without their file systems, and the bundle is empty.
    """

    facts: tuple[FdFact, ...]
    problem: str = ""


class Descriptors(Protocol):
    """What can be learned of, and done to, donated descriptors in the clients' namespace."""

    async def describe(self, files: FdBundle) -> Described:
        """Return the facts of each descriptor, in order; the bundle keeps them.

        To be asked before anything else is done with them, even closing: file systems may take
        as long as they like to answer. One that takes too long is a ``problem``.

        Cancellation: as if one had taken too long.
        """
        ...

    def read_image(self, files: FdBundle) -> Image:
        """Read what the image says of itself that is the first of ``files``; the bundle keeps it.

        Raises:
            ImageRejected: It is no image, or a damaged one; the text says which.
            OSError: It cannot be read.
        """
        ...

    def prepare(self, plan: LaunchPlan, files: FdBundle) -> FdBundle:
        """Make of the donated descriptors what a worker in another mount namespace can use.

        Trees become detached clones, in the same order. Takes ownership of ``files``.

        Raises:
            OSError: The kernel refused, e.g. ``EINVAL`` for a directory of another mount namespace.
        """
        ...

    def open_namespace(self, name: str, path: str) -> OwnedFd:
        """Open the namespace at a path of the clients' file system.

        Args:
            name: Of its kind, as under ``/proc/PID/ns``.
            path: Where it is.

        Raises:
            OSError: The kernel refused; ``EINVAL`` if something else is there.
        """
        ...


class WorkerConnection(Protocol):
    """One connection to the worker, welcomed."""

    @property
    def welcome(self) -> w.Welcome:
        """Return what the worker said of itself."""
        ...

    async def send(self, message: w.ToWorker, files: FdBundle | None = None) -> None:
        """Send one command; ownership of ``files`` moves in, also when this raises.

        Raises:
            WorkerGone: The connection has ended.
        """
        ...

    async def receive(self) -> Sequence[w.Outcome | w.Answer]:
        """Wait for outcomes and answers: at least one, and all that have arrived.

        Raises:
            WorkerGone: The connection has ended.
        """
        ...

    async def aclose(self) -> None:
        """Let go of the connection; the worker lives on."""
        ...


class Workers(Protocol):
    """Where the worker is to be had, and what one that was killed leaves to its parent."""

    def reap(self, pid: int) -> None:
        """Let go of a process whose end is on record, if it has become a child of this process.

        A killed worker's containers become children of a service, which is a subreaper. Until
        their end is recorded they stay zombies, so that nobody's exit status is lost.
        """
        ...

    async def reap_strays(self, living: Callable[[], frozenset[int]]) -> None:
        """Let go, as they end, of processes that a killed worker left and nobody will ask for.

        It leaves more than containers: what engines run beside them. As zombies they would keep
        the next worker waiting for their end. Goes on for as long as there is a worker, which may
        leave more; may be called again meanwhile. Cancellation: safe.

        Args:
            living: Tells the pids of the containers whose end is not on record.
        """
        ...

    async def connect(self) -> WorkerConnection:
        """Connect to the worker that runs, or start one.

        Raises:
            WorkerGone: It cannot be started; the text says why.
        """
        ...


def _nothing_to_sweep(alive: Collection[str]) -> tuple[str, ...]:  # noqa: ARG001 - no doors
    """A node without doors leaves nothing that outlives it."""
    return ()


class NodePorts(Struct, frozen=True, kw_only=True):
    """What a node stands on.

    ``ignore_namespace_paths``, ``permits`` as in
    :class:`manager.domain.request.StartRequest`. ``sweep`` is
    told the ids of the sandboxes that live, removes what the doors of others left, and names it.
    """

    log: EventLog
    workers: Workers
    descriptors: Descriptors
    ids: Ids
    env_key: bytes
    snapshots: SnapshotFiles | None = None
    ignore_namespace_paths: bool = False
    permits: tuple[Permit, ...] = ()
    sweep: Callable[[Collection[str]], Sequence[str]] = _nothing_to_sweep
