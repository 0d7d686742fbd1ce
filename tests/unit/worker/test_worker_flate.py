"""DEFLATE by pieces: what comes out, and what is refused."""

import contextlib
import tracemalloc
import zlib
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manager.schema.image import DEFLATE_RATIO_MAX
from manager.worker.flate import PIECE_BYTES, NotDeflated, deflated, inflated

MIB = 1 << 20


def pieces_of(content: bytes, size: int) -> Iterator[bytes]:
    for at in range(0, len(content), size):
        yield content[at : at + size]


def whole(stream: bytes, bytes_max: int, size: int = PIECE_BYTES) -> bytes:
    return b"".join(inflated(pieces_of(stream, size), bytes_max))


@given(st.binary(max_size=5000), st.integers(0, 300), st.integers(1, 700), st.integers(1, 700))
def test_it_comes_out_as_it_went_in(part: bytes, times: int, size: int, other: int) -> None:
    content = part * times
    stream = b"".join(deflated(pieces_of(content, size)))
    assert whole(stream, len(content), other) == content
    assert zlib.decompress(stream, -15) == content, "others read it as well"
    assert len(content) <= DEFLATE_RATIO_MAX * len(stream)


@given(st.binary(max_size=300))
def test_noise_is_refused_or_bounded(noise: bytes) -> None:
    with contextlib.suppress(NotDeflated):
        assert len(whole(noise, 5000, 7)) <= 5000


STREAM = b"".join(deflated([b"some text " * 100]))


@pytest.mark.parametrize(
    ("stream", "text"),
    [
        (b"", "it ends within a DEFLATE stream"),
        (STREAM[:-1], "it ends within a DEFLATE stream"),
        (STREAM + b"x", "there is more after the DEFLATE stream"),
        (b"\xff" * 10, "it is no DEFLATE stream"),
        (STREAM * 2, "there is more after the DEFLATE stream"),
    ],
)
@pytest.mark.parametrize("size", [1, 5, PIECE_BYTES])
def test_what_is_refused(stream: bytes, text: str, size: int) -> None:
    with pytest.raises(NotDeflated, match=text):
        whole(stream, 1000, size)


def test_every_cut_is_noticed() -> None:
    for length in range(len(STREAM)):
        with pytest.raises(NotDeflated):
            whole(STREAM[:length], 1000)


def test_a_bomb_takes_little_memory_and_is_cut_off() -> None:
    bomb = b"".join(deflated(bytes(MIB) for _ in range(64)))
    taken: list[int] = []
    tracemalloc.start()
    with pytest.raises(NotDeflated, match=f"more than {32 * MIB} bytes come of"):
        taken.extend(len(piece) for piece in inflated([bomb], 32 * MIB))
    assert tracemalloc.get_traced_memory()[1] < 5 * MIB
    tracemalloc.stop()
    assert (max(taken), sum(taken)) == (PIECE_BYTES, 32 * MIB)
