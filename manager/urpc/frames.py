"""Frames of the private socket between manager and worker: a body with descriptors.

One frame is a header (body length as u32, descriptor count as u16, both big-endian) and the body.
The descriptors ride on the header's first byte. A stream socket keeps order, and the count in the
header says how many belong to the frame, so any cutting of the byte stream gives the same frames.

Sans-IO: bytes and descriptors in, frames out. `frame_socket` and `frames_aio` do the system calls.
"""

import struct
from typing import Final

import msgspec

from manager.urpc.errors import FrameError
from manager.urpc.fds import FdBundle

FRAME_BYTES_MAX: Final = 32 * 1024 * 1024
"""Longest body: twice the longest client request, for the facts that go with it."""

FRAME_FDS_MAX: Final = 200
"""Most descriptors of a frame: a client's 128, the trees cloned for them, and some to spare."""

_HEADER: Final = struct.Struct(">IH")
HEADER_BYTES: Final = _HEADER.size


class Frame(msgspec.Struct, frozen=True, kw_only=True):
    """One message. `fds` belongs to whoever received the frame."""

    body: bytes
    fds: FdBundle


def encode_frame(body: bytes, fd_count: int = 0) -> bytes:
    """Put the header before `body`; send the descriptors with the first byte of the result.

    Raises:
        FrameError: Body or count beyond its limit. Send less.
    """
    if len(body) > FRAME_BYTES_MAX:
        raise FrameError(f"frame body of {len(body)} bytes, at most {FRAME_BYTES_MAX} allowed")
    if fd_count > FRAME_FDS_MAX:
        raise FrameError(f"frame with {fd_count} descriptors, at most {FRAME_FDS_MAX} allowed")
    return _HEADER.pack(len(body), fd_count) + body


class FrameDecoder:
    """Bytes and descriptors in, whole frames out. Owns what it has not delivered yet."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._unclaimed = FdBundle()
        self._partial: tuple[int, FdBundle] | None = None

    @property
    def mid_frame(self) -> bool:
        """Whether a frame has begun and not ended: end of stream now means that it is lost."""
        return bool(self._buffer) or self._partial is not None

    def receive_data(self, data: bytes, fds: FdBundle | None = None) -> list[Frame]:
        """Take in what one recvmsg(2) brought; ownership of `fds` moves in.

        Returns:
            The frames completed by it, oldest first; their descriptors belong to the caller.

        Raises:
            FrameError: Over a limit, or descriptors that no header announces, or announced ones
                that did not come. Everything held here is closed; close the connection.
        """
        self._buffer += data
        if fds is not None:
            self._unclaimed.extend(fds)
        frames: list[Frame] = []
        try:
            while (frame := self._next()) is not None:
                frames.append(frame)
            self._check_claimed()
        except FrameError:
            for frame in frames:
                frame.fds.close()
            self.close()
            raise
        return frames

    def close(self) -> None:
        """Close the descriptors of what was not delivered, and forget it."""
        self._buffer.clear()
        self._unclaimed.close()
        if self._partial is not None:
            self._partial[1].close()
            self._partial = None

    def _next(self) -> Frame | None:
        if self._partial is None:
            if len(self._buffer) < HEADER_BYTES:
                return None
            self._partial = self._begin()
        length, fds = self._partial
        if len(self._buffer) < length:
            return None
        body = bytes(memoryview(self._buffer)[:length])
        del self._buffer[:length]
        self._partial = None
        return Frame(body=body, fds=fds)

    def _check_claimed(self) -> None:
        # Only a header that is not whole yet may still claim descriptors.
        if self._unclaimed and (self._partial is not None or not self._buffer):
            raise FrameError(f"{len(self._unclaimed)} descriptors that no frame announced")

    def _begin(self) -> tuple[int, FdBundle]:
        length, fd_count = _HEADER.unpack_from(self._buffer)
        if length > FRAME_BYTES_MAX or fd_count > FRAME_FDS_MAX:
            raise FrameError(f"frame header asks for {length} bytes and {fd_count} descriptors")
        if fd_count > len(self._unclaimed):
            raise FrameError(
                f"frame announces {fd_count} descriptors, {len(self._unclaimed)} came with it"
            )
        del self._buffer[:HEADER_BYTES]
        return length, self._unclaimed.take(fd_count)
