"""DEFLATE (RFC 1951) of what comes in pieces: never more of it in memory than a few of them. Pure.

Both ways give one piece for each one taken, which may be empty, so that whoever drives them can do
other things in between.
"""

import zlib
from collections.abc import Iterable, Iterator
from typing import Final

PIECE_BYTES: Final = 1 << 20
"""How much is asked for, and given out, at a time."""

_RAW: Final = -zlib.MAX_WBITS
"""Neither header nor checksum: an image has a SHA-256 of every file."""


class NotDeflated(Exception):  # noqa: N818 - says what the bytes are not
    """These bytes are no DEFLATE stream, or are not the whole of one, or more than one."""


def deflated(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The DEFLATE stream of some bytes, made as fast as can be."""
    deflater = zlib.compressobj(zlib.Z_BEST_SPEED, zlib.DEFLATED, _RAW)
    for piece in pieces:
        yield deflater.compress(piece)
    yield deflater.flush()


def inflated(pieces: Iterable[bytes], bytes_max: int) -> Iterator[bytes]:
    """What was deflated, in pieces of at most PIECE_BYTES, and of no more than that many in all.

    Raises:
        NotDeflated: It was not, or there is more of it; what came out before is not to be trusted.
    """
    inflater, stream = zlib.decompressobj(_RAW), iter(pieces)
    given, length = b"", 0
    while not inflater.eof:
        given = given or next(stream, b"")
        try:
            made = inflater.decompress(given, PIECE_BYTES)
        except zlib.error as error:
            raise NotDeflated("it is no DEFLATE stream") from error
        if not given and not made and not inflater.eof:
            raise NotDeflated("it ends within a DEFLATE stream")
        length += len(made)
        if length > bytes_max:
            raise NotDeflated(f"more than {bytes_max} bytes come of the DEFLATE stream")
        yield made
        given = inflater.unconsumed_tail
    if inflater.unused_data or next(stream, b""):
        raise NotDeflated("there is more after the DEFLATE stream")
