"""What happened to an image and its containers: checkpoints and restores.

These are events as those of :mod:`manager.domain.events` are; the same rules hold.
"""

from typing import TypeAlias

from msgspec import Struct

from manager.domain.checkpoint import NONE, ImageFacts, Mismatch, Verdict
from manager.domain.request import FdFact
from manager.domain.state import Launched, LaunchIntent


class SandboxCheckpointRequested(
    Struct, frozen=True, kw_only=True, tag="sandbox.checkpoint_requested"
):
    """An image of everything that runs is about to be made: the intent, durable before the effect.

    ``image`` is what its metadata will say; ``file`` is where it is written to.
    """

    checkpoint_id: str
    resume: bool
    image: ImageFacts
    file: FdFact
    request_id: str = ""


class SandboxCheckpointRejected(
    Struct, frozen=True, kw_only=True, tag="sandbox.checkpoint_rejected"
):
    """A Checkpoint was refused.

    ``compression`` is what was asked for; ``reserved_label`` is a label that nobody may give.
    """

    error: str
    files: tuple[FdFact, ...] = ()
    compression: str = NONE
    reserved_label: str = ""
    request_id: str = ""


class SandboxCheckpointed(Struct, frozen=True, kw_only=True, tag="sandbox.checkpointed"):
    """The image is whole and on disk; ``digest`` is the SHA-256 of the file.

    With ``resumed`` the sandbox runs on, its containers as the processes ``revived``, by launch id;
    without, they are ended by their engine.
    """

    checkpoint_id: str
    image_bytes: int
    digest: str
    resumed: bool
    revived: dict[str, Launched] = {}
    request_id: str = ""


class SandboxCheckpointFailed(Struct, frozen=True, kw_only=True, tag="sandbox.checkpoint_failed"):
    """There is no image. The sandbox runs on, its containers as the processes ``revived``.

    If the error says ``interrupted``, only the file itself tells whether it holds an image.
    """

    checkpoint_id: str
    error: str
    revived: dict[str, Launched] = {}
    request_id: str = ""


class RestoreBegun(Struct, frozen=True, kw_only=True, tag="restore.begun"):
    """The sandbox waits for its containers, of which the root is the first one registered.

    ``files`` are the donated image; ``mismatches`` are those of the root's spec. In the
    ``background`` the call that begins the restore of all is answered when that has begun.
    """

    restore_id: str
    hold_id: str
    image: ImageFacts
    total: int
    policy: int
    files: tuple[FdFact, ...]
    root_intent: LaunchIntent
    mismatches: tuple[Mismatch, ...] = ()
    begun_at_ns: int = 0
    request_id: str = ""
    background: bool = False


class ContainerRestoreAccepted(Struct, frozen=True, kw_only=True, tag="container.restore_accepted"):
    """A container is registered, ``registered`` of ``total``; its descriptors are kept for it."""

    container: str
    intent: LaunchIntent
    hold_id: str
    registered: int
    total: int
    mismatches: tuple[Mismatch, ...] = ()


class RestoreValidated(Struct, frozen=True, kw_only=True, tag="restore.validated"):
    """All containers are registered and their specs compared with the image's.

    ``policy`` is the root's RestoreSpecValidation (0 ignore, 1 warning, 2 enforce); ``verdict`` and
    ``mismatches`` do not depend on it. Unless ``error`` says otherwise all are launched now.
    """

    restore_id: str
    policy: int
    verdict: Verdict
    mismatches: tuple[Mismatch, ...] = ()
    error: str = ""


class SandboxRestored(Struct, frozen=True, kw_only=True, tag="sandbox.restored"):
    """Every container goes on from where the image was made; what that saved, in nanoseconds."""

    restore_id: str
    cpu_saved_ns: int = 0
    wall_saved_ns: int = 0


class SandboxRestoreFailed(Struct, frozen=True, kw_only=True, tag="sandbox.restore_failed"):
    """Nothing of the sandbox will run.

    ``method`` is the call that it was found by, to which ``error`` is the answer. ``files`` and
    ``image`` are those of a Restore that failed before anything was registered.
    """

    error: str
    method: str
    files: tuple[FdFact, ...] = ()
    image: ImageFacts | None = None
    request_id: str = ""


RestoreEvent: TypeAlias = (
    SandboxCheckpointRequested
    | SandboxCheckpointRejected
    | SandboxCheckpointed
    | SandboxCheckpointFailed
    | RestoreBegun
    | ContainerRestoreAccepted
    | RestoreValidated
    | SandboxRestored
    | SandboxRestoreFailed
)
"""Those that only a checkpoint or a restore leaves."""
