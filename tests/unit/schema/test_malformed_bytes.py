"""Bytes that are no text, or nest without end: refused like anything else that cannot be read."""

from collections.abc import Callable

import msgspec
import pytest

from manager.schema import image
from manager.schema import worker as w

DEEP = b"\x91" * 100_000
"""An array in an array in an array, in MessagePack."""

KILL = w.encode(w.Kill(launch_id="L", kill_id="K", signo=9, pid=0, mode=0))


@pytest.mark.parametrize("decode", [w.decode_to_worker, w.decode_from_worker])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        KILL.replace(b"kill_id", b"\x80ill_id"),
        b"\x82\xa4type\xa6answer\xa6ask_id" + DEEP,
        b"\x82\xa4type\xa4hold\xa1x" + DEEP,
        b"\x82\xa4type\xa6killed\xa1x" + DEEP,
    ],
)
def test_worker_messages(decode: Callable[[bytes], object], body: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode(body)


def test_a_field_of_a_report_that_is_no_text() -> None:
    report = w.Killed(seq=1, kill_id="a name")
    assert w.decode_from_worker(w.encode(report)) == report
    with pytest.raises(msgspec.DecodeError):
        w.decode_from_worker(w.encode(report).replace(b"a name", b"\x80 name"))


def test_a_command_reads_back_as_it_was() -> None:
    assert w.encode(w.decode_to_worker(KILL)) == KILL


@pytest.mark.parametrize(
    "metadata", [b'{"sandtrail":"\xee"}', b'{"x":' + b"[" * 100_000, b'"\\ud800"', b"[]"]
)
def test_images(metadata: bytes) -> None:
    file = image.encode_header(metadata).ljust(image.ALIGNMENT_BYTES, b"\0") + metadata
    with pytest.raises(image.ImageRejected, match="metadata cannot be read"):
        image.read_image(len(file), lambda offset, length: file[offset : offset + length])
