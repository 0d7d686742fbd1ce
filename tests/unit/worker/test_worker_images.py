"""Images with real files: what was put in comes out, or is refused."""

import os
import random
import tracemalloc
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest

from manager.domain.checkpoint import COMPRESSIONS, FLATE, NONE
from manager.schema.image import (
    ImageContainer,
    ImageMetadata,
    encode_metadata,
    read_image,
)
from manager.urpc.fds import OwnedFd
from manager.worker.errors import LaunchFailed
from manager.worker.images import extract, write_image

OF_THE_FIRST_FORMAT = Path(__file__).parents[2] / "golden" / "images" / "image_v1"
MIB = 1 << 20
FILES = {
    "a": {"checkpoint.img": b"memory of a, " * 400, "empty.img": b"", "page.img": bytes(9000)},
    "b": {"checkpoint.img": random.Random(2).randbytes(500)},
}


class Saved:
    """What engines have left of containers, by name, and the image that becomes of it."""

    def __init__(self, place: Path, containers: Mapping[str, Mapping[str, bytes]]) -> None:
        self._place = place
        self.path = place / "image"
        self._directories = {}
        for name, files in containers.items():
            directory = place / name
            directory.mkdir()
            self._directories[name * 32] = directory
            for file, content in files.items():
                (directory / file).write_bytes(content)

    def write(self, compression: str) -> int:
        """Make the image; says how long it is."""
        containers = tuple(
            ImageContainer(name=key[0], cid="c", engine_id=key, spec=msgspec.Raw(b"{}"))
            for key in self._directories
        )
        metadata = ImageMetadata(engine="e", containers=containers, compression=compression)
        with OwnedFd(os.open(self.path, os.O_RDWR | os.O_CREAT)) as image:
            steps = write_image(image, encode_metadata(metadata), self._directories)
            while True:
                try:
                    next(steps)
                except StopIteration as ended:
                    return int(ended.value[0])


@pytest.fixture
def saved(tmp_path: Path) -> Saved:
    return Saved(tmp_path, FILES)


def taken(image: Path, name: str, engine: str = "e") -> dict[str, bytes]:
    """The files of one container, out of an image."""
    destination = image.with_name("out")
    try:
        with OwnedFd(os.open(image, os.O_RDONLY)) as file:
            for _ in extract(file, name, engine, destination):
                pass
        return {path.name: path.read_bytes() for path in destination.iterdir()}
    finally:
        for path in destination.glob("*"):
            path.unlink()
        if destination.exists():
            destination.rmdir()


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_it_comes_out_as_it_went_in(saved: Saved, compression: str) -> None:
    length = saved.write(compression)
    content = saved.path.read_bytes()
    assert len(content) == length
    read = read_image(length, lambda offset, length: content[offset:][:length])
    assert read.metadata.compression == compression
    for name, files in FILES.items():
        assert taken(saved.path, name) == files


def test_a_compressed_one_is_smaller(saved: Saved) -> None:
    assert saved.write(FLATE) < saved.write(NONE)


def test_of_the_first_format() -> None:
    content = OF_THE_FIRST_FORMAT.read_bytes()
    read = read_image(len(content), lambda offset, length: content[offset:][:length])
    assert (read.metadata.compression, read.metadata.container_count) == (NONE, 2)


def test_what_is_in_one_of_the_first_format(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(OF_THE_FIRST_FORMAT.read_bytes())
    for name, letter in (("root", "a"), ("job", "b")):
        memory = f"memory of {letter}, ".encode() * 100
        assert taken(image, name, "runsc") == {"checkpoint.img": memory, "empty.img": b""}


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_no_damage_of_a_file_goes_unnoticed(tmp_path: Path, compression: str) -> None:
    """A bit of each byte flipped in turn, and the image cut short in many places.

    That of header and metadata is noticed when an image is read: see the tests of the schema.
    """
    files = {"checkpoint.img": b"memory, " * 20 + random.Random(1).randbytes(200)}
    saved, noticed = Saved(tmp_path, {"a": files}), 0
    length = saved.write(compression)
    content = saved.path.read_bytes()
    read = read_image(length, lambda offset, length: content[offset:][:length])
    ((file,),) = (each.files for each in read.metadata.containers or ())
    begin = read.begin + file.offset
    with saved.path.open("r+b", buffering=0) as image:
        for at in range(begin, begin + file.room):
            os.pwrite(image.fileno(), bytes([content[at] ^ 1 << at % 8]), at)
            try:
                assert taken(saved.path, "a") == files, "a few bits of DEFLATE mean nothing"
            except LaunchFailed:
                noticed += 1
            os.pwrite(image.fileno(), content[at : at + 1], at)
        for cut in range(begin + file.room - 1, 0, -61):
            image.truncate(cut)
            with pytest.raises(LaunchFailed, match=r"^restore: "):
                taken(saved.path, "a")
    assert file.room - 3 <= noticed <= file.room


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_it_takes_little_memory(tmp_path: Path, compression: str) -> None:
    saved = Saved(tmp_path, {"a": {}})
    with (tmp_path / "a" / "pages.img").open("wb") as pages:
        pages.truncate(32 * MIB)
    tracemalloc.start()
    saved.write(compression)
    with OwnedFd(os.open(saved.path, os.O_RDONLY)) as image:
        for _ in extract(image, "a", "e", tmp_path / "out"):
            pass
    assert tracemalloc.get_traced_memory()[1] < 6 * MIB
    tracemalloc.stop()
    assert (tmp_path / "out" / "pages.img").stat().st_size == 32 * MIB


def test_a_name_that_is_not_in_it(saved: Saved) -> None:
    saved.write(FLATE)
    with pytest.raises(LaunchFailed, match="the image has no container 'c' of e"):
        taken(saved.path, "c")
