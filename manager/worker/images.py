"""Putting engines' files into an image, and taking them out again; see `manager.schema.image`.

A little at a time: whoever else wants something of the worker meanwhile is served in between.
"""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec
from msgspec.structs import replace

from manager.kernel.fail_points import reached
from manager.schema.image import (
    ImageContainer,
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
from manager.worker.loop import Pause, Steps

PIECE_BYTES: Final = 4 << 20
"""How much is copied before others have their turn."""

FILE_MODE: Final = 0o600
NO_DIGEST: Final = "0" * 64
"""Stands for a digest that is not known yet: it is as long."""


def write_image(
    image: OwnedFd, metadata: bytes, saved: Mapping[str, Path]
) -> Steps[tuple[int, str]]:
    """Write an image and have it on disk: its header last, so that half of it is none.

    Args:
        image: A regular file that can be written; lent. What it held before is lost.
        metadata: JSON of the metadata, still without files.
        saved: Engine id -> directory with the engine's files, for each container of it.

    Returns:
        The image's length in bytes, and the SHA-256 of its metadata.

    Raises:
        OSError: It cannot be written: no space is left, say.
        ImageRejected: An image does not hold so much; says of what.
    """
    os.ftruncate(image.number, 0)
    whole = msgspec.json.decode(metadata, type=ImageMetadata)
    planned, offset = [], 0
    for container in whole.containers or ():
        placed, offset = _placed(container, saved[container.engine_id], offset)
        check_number(placed)
        planned.append(placed)
    whole = replace(whole, containers=tuple(planned))
    begin = data_offset(len(encode_metadata(whole)))
    for number, container in enumerate(planned):
        directory = saved[container.engine_id]
        files = []
        for file in container.files:
            digest = yield from _copy_in(directory / file.name, image, begin + file.offset)
            files.append(replace(file, sha256=digest))
        planned[number] = replace(container, files=tuple(files))
    body = encode_metadata(replace(whole, containers=tuple(planned)))
    _write(image.number, body, aligned(1))
    length = begin + offset
    os.ftruncate(image.number, length)
    reached("image.copied")
    os.fsync(image.number)
    reached("image.synced")
    _write(image.number, encode_header(body), 0)
    os.fsync(image.number)
    reached("image.written")
    return length, hashlib.sha256(body).hexdigest()


def _placed(container: ImageContainer, directory: Path, offset: int) -> tuple[ImageContainer, int]:
    files = []
    for path in sorted(directory.iterdir()):
        length = path.stat().st_size
        files.append(ImageFile(name=path.name, offset=offset, length=length, sha256=NO_DIGEST))
        offset = aligned(offset + length)
    return replace(container, files=tuple(files)), offset


def _copy_in(path: Path, image: OwnedFd, offset: int) -> Steps[str]:
    digest = hashlib.sha256()
    with open(path, "rb") as source:
        while piece := source.read(PIECE_BYTES):
            digest.update(piece)
            _write(image.number, piece, offset)
            offset += len(piece)
            yield Pause(seconds=0)
    return digest.hexdigest()


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
        metadata, begin = read_image(
            os.fstat(image.number).st_size,
            lambda offset, length: os.pread(image.number, length, offset),
        )
        found = next((each for each in metadata.containers or () if each.name == name), None)
        if found is None or metadata.engine != engine:
            raise LaunchFailed("restore", f"the image has no container {name!r} of {engine}")
        destination.mkdir(mode=0o700)
        for file in found.files:
            yield from _copy_out(image, file, begin, destination / file.name)
    except ImageRejected as error:
        raise LaunchFailed("restore", str(error)) from error
    except OSError as error:
        raise LaunchFailed.from_os("restore", "the image cannot be read", error) from error


def _copy_out(image: OwnedFd, file: ImageFile, begin: int, path: Path) -> Steps[None]:
    digest, done = hashlib.sha256(), 0
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with open(os.open(path, flags, FILE_MODE), "wb") as target:
        while done < file.length:
            wanted = min(PIECE_BYTES, file.length - done)
            piece = os.pread(image.number, wanted, begin + file.offset + done)
            if not piece:
                raise LaunchFailed("restore", f"the image is cut short within {file.name}")
            digest.update(piece)
            target.write(piece)
            done += len(piece)
            yield Pause(seconds=0)
    if digest.hexdigest() != file.sha256:
        raise LaunchFailed("restore", f"the image is damaged: {file.name} has another SHA-256")


def _write(number: int, content: bytes, offset: int) -> None:
    view = memoryview(content)
    while view:
        done = os.pwrite(number, view, offset)
        view, offset = view[done:], offset + done
