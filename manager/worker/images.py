"""Putting engines' files into an image, and taking them out again; see `manager.schema.image`.

A little at a time: whoever else wants something of the worker meanwhile is served in between.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec
from msgspec.structs import replace

from manager.domain.checkpoint import NONE
from manager.kernel.fail_points import reached
from manager.schema.image import (
    ImageFile,
    ImageMetadata,
    ImageRejected,
    aligned,
    check_number,
    data_offset,
    encode_header,
    encode_metadata,
    read_image,
)
from manager.urpc.fds import OwnedFd
from manager.worker.errors import LaunchFailed
from manager.worker.flate import PIECE_BYTES, NotDeflated, deflated, inflated
from manager.worker.loop import Pause, Steps

FILE_MODE: Final = 0o600
LARGEST: Final = ImageFile(
    name="", offset=2**63 - 1, length=2**63 - 1, sha256="0" * 64, stored=2**63 - 1
)
"""No entry of a file is longer, but for its name."""


def write_image(
    image: OwnedFd, metadata: bytes, saved: Mapping[str, Path]
) -> Steps[tuple[int, str]]:
    """Write an image and have it on disk: its header last, so that half of it is none.

    Args:
        image: A regular file that can be written; lent. What it held before is lost.
        metadata: JSON of the metadata, still without files; it says whether to compress them.
        saved: Engine id -> directory with the engine's files, for each container of it.

    Returns:
        The image's length in bytes, and the SHA-256 of its metadata.

    Raises:
        OSError: It cannot be written: no space is left, say.
        ImageRejected: An image does not hold so much; says of what.
    """
    os.ftruncate(image.number, 0)
    whole = msgspec.json.decode(metadata, type=ImageMetadata)
    space = _space(whole, saved)
    begin, offset, containers = data_offset(space), 0, []
    for container in whole.containers or ():
        files = []
        for path in sorted(saved[container.engine_id].iterdir()):
            file = yield from _copy_in(path, image, begin, offset, whole.compression)
            files.append(file)
            offset = aligned(offset + file.room)
        containers.append(replace(container, files=tuple(files)))
    # Blanks at its end mean nothing to JSON.
    body = encode_metadata(replace(whole, containers=tuple(containers))).ljust(space)
    _write(image.number, body, aligned(1))
    length = begin + offset
    os.ftruncate(image.number, length)
    reached("image.copied")
    os.fsync(image.number)
    reached("image.synced")
    _write(image.number, encode_header(body, whole.compression), 0)
    os.fsync(image.number)
    reached("image.written")
    return length, hashlib.sha256(body).hexdigest()


def _space(metadata: ImageMetadata, saved: Mapping[str, Path]) -> int:
    """Bytes that suffice for the metadata: it comes first, but is known last."""
    containers = []
    for container in metadata.containers or ():
        names = os.listdir(saved[container.engine_id])
        planned = replace(container, files=tuple(replace(LARGEST, name=name) for name in names))
        check_number(planned)
        containers.append(planned)
    return len(encode_metadata(replace(metadata, containers=tuple(containers))))


def _copy_in(
    path: Path, image: OwnedFd, begin: int, offset: int, compression: str
) -> Steps[ImageFile]:
    """Copy a file to an offset of the data, which begins at ``begin``; says how it lies there."""
    digest, length, stored = hashlib.sha256(), 0, 0
    with open(path, "rb") as source:

        def pieces() -> Iterator[bytes]:
            nonlocal length
            while piece := source.read(PIECE_BYTES):
                digest.update(piece)
                length += len(piece)
                yield piece

        for piece in pieces() if compression == NONE else deflated(pieces()):
            _write(image.number, piece, begin + offset + stored)
            stored += len(piece)
            yield Pause(seconds=0)
    return ImageFile(
        name=path.name,
        offset=offset,
        length=length,
        sha256=digest.hexdigest(),
        stored=None if compression == NONE else stored,
    )


def extract(image: OwnedFd, name: str, engine: str, destination: Path) -> Steps[None]:
    """Take the files of one container out of an image, and see that they are what was put in.

    Args:
        image: Lent.
        name: The container's name in the image.
        engine: Who is to read the files.
        destination: A directory, made here.

    Raises:
        LaunchFailed: Stage `restore`; what was made so far is left to the caller.
    """
    try:
        read = read_image(
            os.fstat(image.number).st_size,
            lambda offset, length: os.pread(image.number, length, offset),
        )
        containers = read.metadata.containers or ()
        found = next((each for each in containers if each.name == name), None)
        if found is None or read.metadata.engine != engine:
            raise LaunchFailed("restore", f"the image has no container {name!r} of {engine}")
        destination.mkdir(mode=0o700)
        for file in found.files:
            yield from _copy_out(image, file, read.begin, destination / file.name)
    except ImageRejected as error:
        raise LaunchFailed("restore", str(error)) from error
    except OSError as error:
        raise LaunchFailed.from_os("restore", "the image cannot be read", error) from error


def _copy_out(image: OwnedFd, file: ImageFile, begin: int, path: Path) -> Steps[None]:
    digest, pieces = hashlib.sha256(), _stored(image, file, begin)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with open(os.open(path, flags, FILE_MODE), "wb") as target:
        try:
            for piece in pieces if file.stored is None else inflated(pieces, file.length):
                digest.update(piece)
                target.write(piece)
                yield Pause(seconds=0)
        except NotDeflated as problem:
            reason = f"the image is damaged: {file.name}: {problem}"
            raise LaunchFailed("restore", reason) from problem
    if digest.hexdigest() != file.sha256:
        raise LaunchFailed("restore", f"the image is damaged: {file.name} has another SHA-256")


def _stored(image: OwnedFd, file: ImageFile, begin: int) -> Iterator[bytes]:
    """A file as it lies in the image."""
    done = 0
    while done < file.room:
        wanted = min(PIECE_BYTES, file.room - done)
        piece = os.pread(image.number, wanted, begin + file.offset + done)
        if not piece:
            raise LaunchFailed("restore", f"the image is cut short within {file.name}")
        done += len(piece)
        yield piece


def _write(number: int, content: bytes, offset: int) -> None:
    view = memoryview(content)
    while view:
        done = os.pwrite(number, view, offset)
        view, offset = view[done:], offset + done
