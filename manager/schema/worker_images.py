"""What the manager and the worker say about images; part of :mod:`manager.schema.worker`."""

from typing import Literal

from msgspec import Struct

from manager.schema.worker_facts import Revived


class Save(Struct, frozen=True, kw_only=True, tag="save"):
    """Make an image of these launches, of all of them at one moment, or of none.

    The frame's one descriptor is the file, which is written from its beginning; see
    :mod:`manager.schema.image`. ``metadata`` is JSON of its metadata, still without ``files``. With
    ``resume`` they run on afterwards, else they end.
    """

    checkpoint_id: str
    launch_ids: tuple[str, ...]
    metadata: bytes
    resume: bool


class Saved(Struct, frozen=True, kw_only=True, tag="saved"):
    """The image is whole and on disk; ``digest`` is the SHA-256 of the file."""

    seq: int
    checkpoint_id: str
    image_bytes: int
    digest: str
    resumed: bool
    revived: tuple[Revived, ...] = ()


class SaveFailed(Struct, frozen=True, kw_only=True, tag="save_failed"):
    """There is no image: the file has no header. Everything runs on."""

    seq: int
    checkpoint_id: str
    stage: Literal["freeze", "save", "write", "resume", "interrupted"]
    reason: str
    revived: tuple[Revived, ...] = ()
