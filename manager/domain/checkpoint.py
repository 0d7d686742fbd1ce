"""What an image says of itself, and how far a checkpoint or a restore has come."""

from typing import Final, Literal, TypeAlias

from msgspec import Struct

IGNORE: Final = 0
WARNING: Final = 1
ENFORCE: Final = 2
POLICY_NAMES: Final = {IGNORE: "ignore", WARNING: "warning", ENFORCE: "enforce"}
"""Conf.RestoreSpecValidation, as gVisor numbers it."""

NONE: Final = "none"
FLATE: Final = "flate-best-speed"
COMPRESSIONS: Final = (NONE, FLATE)
"""How an image may be compressed, as gVisor names it; not at all unless somebody asks for it."""

COMPRESSION_LABEL: Final = "compression"
"""The label of a checkpoint by which it is asked for."""

Verdict: TypeAlias = Literal["same", "differs"]


def is_reserved(label: str) -> bool:
    """Whether a label is one that gVisor keeps to itself."""
    return label.startswith("_")


class ImageEntry(Struct, frozen=True, kw_only=True):
    """One container of an image.

    ``engine_id`` is what its engine called it: it can only be restored under that id.
    """

    name: str
    cid: str
    engine_id: str
    root: bool = False


class ImageFacts(Struct, frozen=True, kw_only=True):
    """What an image's metadata says; ``digest`` names its body among the documents.

    Times are in nanoseconds: processor time used, time since the root was started, and when the
    image was made, since 1970.
    """

    digest: str
    sandtrail: str = ""
    engine: str = ""
    engine_version: str = ""
    container_count: int | None = None
    containers: tuple[ImageEntry, ...] | None = None
    network: str = "none"
    compression: str = NONE
    cpu_ns: int = 0
    wall_ns: int = 0
    taken_ns: int = 0

    def entry(self, name: str) -> ImageEntry | None:
        """The container of that name."""
        return next((each for each in self.containers or () if each.name == name), None)


class Mismatch(Struct, frozen=True, kw_only=True):
    """One point in which a spec is not what it was when the image was made.

    ``container`` is the container's name, ``field`` gVisor's label. ``error`` is the text by which
    gVisor refuses a restore because of it.
    """

    container: str
    field: str
    error: str


class RestoreProgress(Struct, frozen=True, kw_only=True):
    """A restore from its beginning on.

    ``hold_id`` names the image in the worker's keeping; ``registered`` are cids, in order, and
    ``mismatches`` all that was found different so far. In the ``background`` nobody who asked for
    it waits for its end.
    """

    restore_id: str
    hold_id: str
    image: ImageFacts
    total: int
    policy: int = ENFORCE
    registered: tuple[str, ...] = ()
    mismatches: tuple[Mismatch, ...] = ()
    begun_at_ns: int = 0
    background: bool = False


class CheckpointIntent(Struct, frozen=True, kw_only=True):
    """A checkpoint that is under way."""

    checkpoint_id: str
    resume: bool
    request_id: str = ""
