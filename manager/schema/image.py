"""The file that a checkpoint is kept in. Pure: whoever calls reads and writes.

::

    0      header, 64 bytes: magic, format version, where and how long the metadata is, its SHA-256
    4096   metadata: one JSON object
    ...    the engine's files of each container, each at a multiple of 4096

If the image is compressed, each of these files is one DEFLATE stream, and the format version is 2.
The header is written last, when everything else is on disk: a file that was half written when
somebody died has no magic, and is no image. ``docs/checkpoint-format.md`` says the same to readers
in other languages.
"""

import hashlib
import re
import struct
from collections.abc import Callable
from typing import Final

import msgspec
from msgspec import Struct

from manager.domain.checkpoint import FLATE, NONE

MAGIC: Final = b"sandtrail-image\n"
FORMAT_VERSIONS: Final = {NONE: 1, FLATE: 2}
"""Compression, as gVisor names it -> format version of the images that have it."""

DEFLATE_RATIO_MAX: Final = 1032
"""How many bytes one byte of a DEFLATE stream can stand for: four times the longest match."""

ALIGNMENT_BYTES: Final = 4096
METADATA_BYTES_MAX: Final = 64 * 1024 * 1024
FILES_MAX: Final = 16_384
"""Files that one container's engine may have in an image: CRIU writes some for each process."""

_HEADER: Final = struct.Struct("<16sIIQ32s")
HEADER_BYTES: Final = _HEADER.size
_FILE_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}", re.ASCII)


class ImageRejected(ValueError):  # noqa: N818 - an answer, as other refusals
    """The file is no image, is damaged, or is of a newer program; the text says which.

    The caller's next move: another file, or a new checkpoint.
    """


class ImageFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One of an engine's files.

    Attributes:
        name: What the engine calls it; no path.
        offset: In bytes, from the end of the metadata, rounded up to the next multiple of 4096.
        length: In bytes, as the engine wrote it.
        sha256: Of what the engine wrote, in lowercase hexadecimal digits.
        stored: How many bytes it takes in a compressed image; `None` in another one.
    """

    name: str
    offset: int
    length: int
    sha256: str
    stored: int | None = None

    @property
    def room(self) -> int:
        """How many bytes it takes in the image."""
        return self.length if self.stored is None else self.stored


class ImageContainer(Struct, frozen=True, kw_only=True):
    """One container that was running.

    Attributes:
        name: The container's name, by which a restore pairs it; its cid where it had none.
        cid: What it was called when the image was made.
        engine_id: What its engine called it: it can only be restored under that id.
        root: Whether it was its sandbox's root container.
        spec: Its OCI spec, values of the environment masked as in the log.
        files: What its engine wrote of it.
    """

    name: str
    cid: str
    engine_id: str
    spec: msgspec.Raw
    root: bool = False
    files: tuple[ImageFile, ...] = ()


class ImageMetadata(Struct, frozen=True, kw_only=True):
    """What an image says of itself.

    Attributes:
        sandtrail: Version of the program that made it.
        engine: Engine of every container in it.
        engine_version: As the engine says it.
        container_count: How many containers a restore has to register.
        containers: In the order of their creation, the root first.
        network: ``none`` or ``host``.
        compression: Of the engine's files: a key of FORMAT_VERSIONS.
        cpu_ns: Processor time that the containers had used.
        wall_ns: Time since the root container was started.
        taken_ns: When it was made, since 1970.
    """

    sandtrail: str = ""
    engine: str = ""
    engine_version: str = ""
    container_count: int | None = None
    containers: tuple[ImageContainer, ...] | None = None
    network: str = "none"
    compression: str = NONE
    cpu_ns: int = 0
    wall_ns: int = 0
    taken_ns: int = 0


class Image(Struct, frozen=True, kw_only=True):
    """What can be read of an image without its engines' files.

    Attributes:
        metadata: What it says of itself.
        body: The metadata as it stands there: its SHA-256 is that of the image.
        begin: The offset from which the engines' files are counted.
    """

    metadata: ImageMetadata
    body: bytes
    begin: int


def specs_of(metadata: ImageMetadata) -> dict[str, dict[str, object]]:
    """The specs of an image's containers, by name."""
    return {
        container.name: msgspec.json.decode(container.spec, type=dict[str, object])
        for container in metadata.containers or ()
    }


def encode_metadata(metadata: ImageMetadata) -> bytes:
    """The metadata as the image has it.

    Raises:
        ImageRejected: It is longer than METADATA_BYTES_MAX.
    """
    body = msgspec.json.encode(metadata)
    if len(body) > METADATA_BYTES_MAX:
        raise ImageRejected(
            f"the metadata has {len(body)} bytes, an image holds {METADATA_BYTES_MAX}"
        )
    return body


def encode_header(metadata: bytes, compression: str = NONE) -> bytes:
    """The header that goes before that metadata, once everything else is on disk."""
    digest = hashlib.sha256(metadata).digest()
    version = FORMAT_VERSIONS[compression]
    return _HEADER.pack(MAGIC, version, len(metadata), ALIGNMENT_BYTES, digest)


def aligned(offset: int) -> int:
    """The next multiple of 4096."""
    return -(-offset // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


def data_offset(metadata_length: int) -> int:
    """Where the engines' files begin."""
    return aligned(ALIGNMENT_BYTES + metadata_length)


def read_image(size: int, read: Callable[[int, int], bytes]) -> Image:
    """Read an image's metadata, and see that every file that it names is there in full.

    The contents of the engines' files are not looked at: whoever takes one out of the image
    compares its SHA-256.

    Args:
        size: Of the file, in bytes.
        read: Reads that many bytes from an offset; it may return fewer at the file's end.

    Raises:
        ImageRejected: With gVisor's text where it has one.
    """
    if size == 0:
        raise ImageRejected("statefile cannot be empty")
    version, length, digest = _read_header(read(0, HEADER_BYTES))
    body = read(ALIGNMENT_BYTES, length)
    if len(body) < length:
        raise ImageRejected(f"the image is cut short: {size} bytes end before its metadata does")
    if hashlib.sha256(body).digest() != digest:
        raise ImageRejected("the image is damaged: its metadata has another SHA-256 than it says")
    try:
        metadata = msgspec.json.decode(body, type=ImageMetadata)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ImageRejected(f"the image's metadata cannot be read: {error}") from error
    _check_compression(metadata.compression, version)
    begin = data_offset(length)
    for container in metadata.containers or ():
        _check_files(container, size - begin, compressed=metadata.compression != NONE)
    return Image(metadata=metadata, body=body, begin=begin)


def _read_header(header: bytes) -> tuple[int, int, bytes]:
    if header[: len(MAGIC)] != MAGIC:
        raise ImageRejected(
            "creating statefile reader: statefile.NewReader failed: bad magic header"
        )
    if len(header) < HEADER_BYTES:
        raise ImageRejected("the image is cut short: it ends within its header")
    _, version, length, offset, digest = _HEADER.unpack(header)
    if version not in FORMAT_VERSIONS.values():
        newest = max(FORMAT_VERSIONS.values())
        raise ImageRejected(
            f"the image has format version {version}, this program reads 1 to {newest}"
        )
    if offset != ALIGNMENT_BYTES or length > METADATA_BYTES_MAX:
        raise ImageRejected(f"the image is damaged: {length} bytes of metadata at {offset}")
    return version, length, digest


def _check_compression(compression: str, version: int) -> None:
    if compression not in FORMAT_VERSIONS:
        raise ImageRejected(
            "creating statefile reader: statefile.NewReader failed: flags set is invalid"
        )
    if FORMAT_VERSIONS[compression] != version:
        raise ImageRejected(
            f"the image is damaged: format version {version} with compression {compression}"
        )


def check_number(container: ImageContainer) -> None:
    """See that a container has no more files than an image holds.

    Raises:
        ImageRejected: It has.
    """
    count = len(container.files)
    if count > FILES_MAX:
        raise ImageRejected(
            f"container {container.name!r} has {count} files, an image holds {FILES_MAX} each"
        )


def _check_files(container: ImageContainer, space: int, *, compressed: bool) -> None:
    check_number(container)
    files = container.files
    if len({file.name for file in files}) < len(files):
        raise ImageRejected(f"container {container.name!r} has two files of the same name")
    for file in files:
        if not _FILE_NAME.fullmatch(file.name):
            raise ImageRejected(f"container {container.name!r} has a file named {file.name!r}")
        if file.offset < 0 or file.length < 0 or file.room < 0 or file.offset % ALIGNMENT_BYTES:
            raise ImageRejected(f"{file.name} of container {container.name!r} is at no valid place")
        if (file.stored is not None) != compressed or file.length > file.room * DEFLATE_RATIO_MAX:
            raise ImageRejected(
                f"{file.name} of container {container.name!r} cannot have {file.length} bytes"
            )
        if file.offset + file.room > space:
            raise ImageRejected(
                f"the image is cut short: {file.name} of container {container.name!r} ends "
                f"{file.offset + file.room - space} bytes after the image does"
            )
