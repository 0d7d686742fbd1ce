"""The checkpoint image: what is read back, and what is refused."""

import hashlib
import struct

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from manager.domain.checkpoint import FLATE, NONE
from manager.schema.image import (
    ALIGNMENT_BYTES,
    FILES_MAX,
    HEADER_BYTES,
    MAGIC,
    METADATA_BYTES_MAX,
    Image,
    ImageContainer,
    ImageFile,
    ImageMetadata,
    ImageRejected,
    aligned,
    data_offset,
    encode_header,
    encode_metadata,
    read_image,
)

CONTENTS = b"engine's own bytes"
FILE = ImageFile(
    name="checkpoint.img",
    offset=0,
    length=len(CONTENTS),
    sha256=hashlib.sha256(CONTENTS).hexdigest(),
)
CONTAINER = ImageContainer(
    name="web", cid="c1", engine_id="a" * 32, spec=msgspec.Raw(b"{}"), root=True, files=(FILE,)
)
METADATA = ImageMetadata(engine="runsc", container_count=1, containers=(CONTAINER,), cpu_ns=5)


def image_of(metadata: ImageMetadata, contents: bytes = CONTENTS) -> bytes:
    return packed(encode_metadata(metadata), contents, metadata.compression)


def packed(body: bytes, contents: bytes = CONTENTS, compression: str = NONE) -> bytes:
    begin = data_offset(len(body))
    head = encode_header(body, compression).ljust(ALIGNMENT_BYTES, b"\0") + body
    return head.ljust(begin, b"\0") + contents


def read(image: bytes) -> Image:
    return read_image(len(image), lambda offset, length: image[offset : offset + length])


def test_it_is_read_back() -> None:
    image = image_of(METADATA)
    found = read(image)
    assert found.metadata == METADATA
    assert found.body == encode_metadata(METADATA)
    assert found.begin % ALIGNMENT_BYTES == 0
    assert image[found.begin :][: FILE.length] == CONTENTS
    assert (HEADER_BYTES, aligned(1), aligned(4096)) == (64, 4096, 4096)


def with_file(compression: str = NONE, **members: object) -> bytes:
    changed = replace(CONTAINER, files=(replace(FILE, **members),))
    return image_of(replace(METADATA, containers=(changed,), compression=compression))


STORED = {"stored": len(CONTENTS)}


def test_a_compressed_one_is_read_back() -> None:
    image = with_file(FLATE, length=1032 * len(CONTENTS), **STORED)
    found = read(image)
    ((file,),) = (each.files for each in found.metadata.containers or ())
    assert (file.length, file.room, FILE.room) == (1032 * 18, 18, 18)
    assert image[16] == 2, "who cannot inflate does not take it for another"


def test_of_an_older_program_it_says_nothing_of_compression() -> None:
    body = encode_metadata(METADATA).replace(b'"compression":"none",', b"")
    assert b"compression" not in body
    assert read(packed(body)).metadata == METADATA


def with_files(*files: ImageFile) -> bytes:
    return image_of(replace(METADATA, containers=(replace(CONTAINER, files=files),)))


def header(version: int, length: int, offset: int) -> bytes:
    return struct.pack("<16sIIQ32s", MAGIC, version, length, offset, b"\0" * 32)


MANY = tuple(replace(FILE, name=f"f{number}") for number in range(FILES_MAX + 1))
WHOLE = image_of(METADATA)


@pytest.mark.parametrize(
    ("image", "text"),
    [
        (b"", "^statefile cannot be empty$"),
        (b"gVisorSF" + b"\0" * 100, "statefile.NewReader failed: bad magic header$"),
        (MAGIC, "it ends within its header"),
        (header(3, 0, 4096), "format version 3, this program reads 1 to 2"),
        (
            packed(encode_metadata(replace(METADATA, compression="zstd"))),
            "^creating statefile reader: statefile.NewReader failed: flags set is invalid$",
        ),
        (packed(encode_metadata(METADATA), compression=FLATE), "version 2 with compression none"),
        (
            packed(encode_metadata(replace(METADATA, compression=FLATE))),
            "format version 1 with compression flate-best-speed",
        ),
        (with_file(FLATE), "checkpoint.img of container 'web' cannot have 18 bytes"),
        (with_file(**STORED), "cannot have 18 bytes"),
        (with_file(FLATE, length=1032 * 18 + 1, **STORED), "cannot have 18577 bytes"),
        (with_file(FLATE, stored=-1), "at no valid place"),
        (with_file(FLATE, stored=len(CONTENTS) + 1), "ends 1 bytes after the image does"),
        (header(1, 0, 64), "damaged: 0 bytes of metadata at 64"),
        (header(1, METADATA_BYTES_MAX + 1, 4096), "damaged: 67108865 bytes"),
        (WHOLE[: ALIGNMENT_BYTES + 5], "end before its metadata does"),
        (WHOLE.replace(b"runsc", b"RUNSC"), "another SHA-256"),
        (packed(b"{"), "metadata cannot be read"),
        (packed(b"[" * 100_000), "metadata cannot be read"),
        (packed(b'{"container_count": "x"}'), "metadata cannot be read"),
        (WHOLE[:-1], "ends 1 bytes after the image does"),
        (with_file(name="../x"), "a file named '../x'"),
        (with_file(name=".x"), "a file named '.x'"),
        (with_file(offset=-4096), "at no valid place"),
        (with_file(offset=1), "at no valid place"),
        (with_file(length=-1), "at no valid place"),
        (with_files(FILE, FILE), "two files of the same name"),
        (with_files(*MANY), f"{FILES_MAX + 1} files, an image holds {FILES_MAX}"),
    ],
)
def test_what_is_refused(image: bytes, text: str) -> None:
    with pytest.raises(ImageRejected, match=text):
        read(image)


def test_metadata_has_a_limit() -> None:
    huge = replace(METADATA, engine="x" * METADATA_BYTES_MAX)
    with pytest.raises(ImageRejected, match="an image holds 67108864"):
        encode_metadata(huge)


METADATA_END = ALIGNMENT_BYTES + len(encode_metadata(METADATA))


def is_said(at: int) -> bool:
    """Whether a byte is one that the header or the metadata is made of; the rest is padding."""
    return at < HEADER_BYTES or ALIGNMENT_BYTES <= at < METADATA_END


def test_every_flipped_bit_of_header_and_metadata_is_noticed_and_no_other() -> None:
    flipped = bytearray(WHOLE)
    for at in range(len(WHOLE)):
        for bit in range(8) if is_said(at) else (at % 8,):
            flipped[at] ^= 1 << bit
            if is_said(at):
                with pytest.raises(ImageRejected):
                    read(bytes(flipped))
            else:
                # Padding, or a file with a SHA-256 of its own.
                assert read(bytes(flipped)).metadata == METADATA
            flipped[at] ^= 1 << bit


def test_every_cut_is_noticed() -> None:
    for length in range(len(WHOLE)):
        with pytest.raises(ImageRejected):
            read(WHOLE[:length])


@given(st.binary(max_size=200))
def test_nothing_crashes_it(noise: bytes) -> None:
    for image in (noise, packed(noise)):
        try:
            read(image)
        except ImageRejected:
            continue
