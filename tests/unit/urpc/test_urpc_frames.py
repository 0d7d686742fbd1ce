"""The private frames: header, limits, and which descriptors belong to which frame."""

import os
import socket
from collections.abc import Iterator

import pytest

from manager.urpc import frame_socket
from manager.urpc.errors import FrameError, PeerClosed
from manager.urpc.fds import FdBundle, OwnedFd
from manager.urpc.frame_socket import FrameSocket
from manager.urpc.frames import (
    FRAME_BYTES_MAX,
    FRAME_FDS_MAX,
    HEADER_BYTES,
    FrameDecoder,
    encode_frame,
)
from manager.urpc.frames_aio import AsyncFrameSocket


def open_count() -> int:
    return len(os.listdir("/proc/self/fd"))


def nulls(count: int) -> FdBundle:
    return FdBundle(OwnedFd(os.open("/dev/null", os.O_RDWR)) for _ in range(count))


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    before = open_count()
    left, right = socket.socketpair()
    yield left, right
    left.close()
    right.close()
    assert open_count() == before


def test_layout_of_a_frame() -> None:
    assert encode_frame(b"abc", 2) == b"\x00\x00\x00\x03\x00\x02abc"


def test_limits_when_encoding() -> None:
    with pytest.raises(FrameError, match=f"at most {FRAME_BYTES_MAX} allowed"):
        encode_frame(bytes(FRAME_BYTES_MAX + 1))
    with pytest.raises(FrameError, match=f"frame with {FRAME_FDS_MAX + 1} descriptors"):
        encode_frame(b"", FRAME_FDS_MAX + 1)


@pytest.mark.parametrize(
    "header",
    [
        (FRAME_BYTES_MAX + 1).to_bytes(4, "big") + b"\0\0",
        b"\0\0\0\0" + (FRAME_FDS_MAX + 1).to_bytes(2, "big"),
        b"\0\0\0\0\0\1",
    ],
    ids=["too long", "too many descriptors", "announced but not sent"],
)
def test_a_bad_header_is_an_error_and_closes_what_came(header: bytes) -> None:
    before = open_count()
    decoder = FrameDecoder()
    with pytest.raises(FrameError, match="frame"):
        decoder.receive_data(encode_frame(b"first", 1) + header, nulls(1))
    assert open_count() == before
    assert not decoder.mid_frame


def test_descriptors_that_nobody_announced_are_an_error() -> None:
    before = open_count()
    with pytest.raises(FrameError, match="1 descriptors that no frame announced"):
        FrameDecoder().receive_data(encode_frame(b"x"), nulls(1))
    with pytest.raises(FrameError, match="1 descriptors that no frame announced"):
        FrameDecoder().receive_data(encode_frame(b"xyz", 1)[:-1], nulls(2))
    assert open_count() == before


def test_descriptors_of_two_frames_in_one_read_do_not_mix() -> None:
    decoder = FrameDecoder()
    assert decoder.receive_data(encode_frame(b"plain")[:-1]) == []
    assert decoder.mid_frame
    plain, first = decoder.receive_data(b"n" + encode_frame(b"a", 2), nulls(2))
    (second,) = decoder.receive_data(encode_frame(b"b", 1), nulls(1))
    with plain.fds, first.fds, second.fds:
        assert [len(frame.fds) for frame in (plain, first, second)] == [0, 2, 1]
        assert [plain.body, first.body, second.body] == [b"plain", b"a", b"b"]


def test_closing_a_decoder_closes_what_is_not_delivered() -> None:
    before = open_count()
    decoder = FrameDecoder()
    decoder.receive_data(encode_frame(b"xyz", 3)[: HEADER_BYTES + 1], nulls(3))
    decoder.close()
    assert open_count() == before


def test_frames_through_a_real_socket(pair: tuple[socket.socket, socket.socket]) -> None:
    with FrameSocket(pair[0]) as sender, FrameSocket(pair[1]) as receiver:
        fds = nulls(3)
        sender.send(b"with", fds)
        sender.send(b"without")
        assert len(fds) == 0
        frames = receiver.receive() + receiver.receive()
        assert [(frame.body, len(frame.fds)) for frame in frames] == [(b"with", 3), (b"without", 0)]
        assert receiver.receive() == []
        for frame in frames:
            frame.fds.close()


def test_descriptors_arrive_close_on_exec(pair: tuple[socket.socket, socket.socket]) -> None:
    with FrameSocket(pair[0]) as sender, FrameSocket(pair[1]) as receiver:
        sender.send(b"", nulls(FRAME_FDS_MAX))
        (frame,) = receiver.receive()
        with frame.fds:
            assert len(frame.fds) == FRAME_FDS_MAX
            assert not any(os.get_inheritable(number) for number in frame.fds.numbers())


def test_a_slow_peer_gets_every_frame_in_order(pair: tuple[socket.socket, socket.socket]) -> None:
    with FrameSocket(pair[0]) as sender, FrameSocket(pair[1]) as receiver:
        for index in range(20):
            sender.send(bytes([index]) * 100_000, nulls(index % 3))
        assert sender.wants_write
        frames = []
        while len(frames) < 20:
            frames += receiver.receive()
            sender.flush()
        assert [frame.body[0] for frame in frames] == list(range(20))
        assert [len(frame.fds) for frame in frames] == [index % 3 for index in range(20)]
        assert not sender.wants_write
        for frame in frames:
            frame.fds.close()


def test_a_peer_that_never_reads_is_given_up(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frame_socket, "PENDING_BYTES_MAX", 400_000)
    with FrameSocket(pair[0]) as sender:
        sender.send(bytes(350_000), nulls(1))
        fds = nulls(1)
        with pytest.raises(FrameError, match="wait for the peer, no room for"):
            sender.send(bytes(350_000), fds)
        assert len(fds) == 0


def test_end_of_stream(pair: tuple[socket.socket, socket.socket]) -> None:
    with FrameSocket(pair[1]) as receiver:
        pair[0].send(b"\0\0")
        assert receiver.receive() == []
        pair[0].close()
        with pytest.raises(PeerClosed, match="end of stream in the middle of a frame"):
            receiver.receive()


def test_sending_to_a_peer_that_is_gone(pair: tuple[socket.socket, socket.socket]) -> None:
    pair[1].close()
    with FrameSocket(pair[0]) as sender, pytest.raises(PeerClosed, match="the peer is gone"):
        sender.send(b"x", nulls(1))


def test_more_descriptors_than_a_frame_may_carry(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    with nulls(1) as source, FrameSocket(pair[1]) as receiver:
        socket.send_fds(pair[0], [b"\0"], [source[0].number] * (FRAME_FDS_MAX + 1))
        with pytest.raises(FrameError, match="descriptors were cut off"):
            receiver.receive()


def test_adopting_an_inherited_number(pair: tuple[socket.socket, socket.socket]) -> None:
    with FrameSocket.adopt(pair[1].detach()) as receiver:
        pair[0].send(encode_frame(b"hello"))
        assert [frame.body for frame in receiver.receive()] == [b"hello"]
        assert not receiver.closed
    assert receiver.closed


async def test_async_ends_with_a_slow_reader() -> None:
    import anyio

    left, right = socket.socketpair()
    async with (
        AsyncFrameSocket(left) as sender,
        AsyncFrameSocket(right) as receiver,
        anyio.create_task_group() as group,
    ):
        for index in range(4):
            group.start_soon(sender.send, bytes([index]) * 1_000_000, nulls(index))
        for index in range(4):
            frame = await receiver.receive()
            with frame.fds:
                assert frame.body == bytes([index]) * 1_000_000
                assert len(frame.fds) == index


async def test_frames_that_came_together_are_pending() -> None:
    left, right = socket.socketpair()
    async with AsyncFrameSocket(left) as sender, AsyncFrameSocket(right) as receiver:
        for body in (b"a", b"b", b"c"):
            await sender.send(body)
        await sender.send(b"", nulls(2))
        assert receiver.pending == 0
        assert (await receiver.receive()).body == b"a"
        assert receiver.pending >= 2
    # Closed with frames unread, and their descriptors with them: a leak would warn.


async def test_a_cancelled_send_leaves_whole_frames() -> None:
    import anyio

    left, right = socket.socketpair()
    async with AsyncFrameSocket(left) as sender, AsyncFrameSocket(right) as receiver:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await sender.send(bytes(2_000_000), nulls(1))
        assert scope.cancelled_caught
        async with anyio.create_task_group() as group:
            group.start_soon(sender.send, b"next")
            first, second = await receiver.receive(), await receiver.receive()
            with first.fds:
                assert (len(first.body), len(first.fds)) == (2_000_000, 1)
            assert second.body == b"next"


async def test_closing_wakes_those_who_wait() -> None:
    import anyio

    left, right = socket.socketpair()
    ended = []

    async def expect_closed(end: AsyncFrameSocket, how: str) -> None:
        with pytest.raises(PeerClosed, match="this end was closed"):
            await (end.receive() if how == "receive" else end.send(bytes(2_000_000)))
        ended.append(how)

    end = AsyncFrameSocket(left)
    async with AsyncFrameSocket(right), anyio.create_task_group() as group:
        group.start_soon(expect_closed, end, "receive")
        group.start_soon(expect_closed, end, "send")
        await anyio.wait_all_tasks_blocked()
        await end.aclose()
    assert sorted(ended) == ["receive", "send"]
    await end.aclose()
    with pytest.raises(PeerClosed, match="this end is closed"):
        await end.receive()
    fds = nulls(1)
    with pytest.raises(PeerClosed, match="this end is closed"):
        await end.send(b"", fds)
    assert len(fds) == 0


async def test_the_async_end_sees_the_end_of_the_stream() -> None:
    left, right = socket.socketpair()
    async with AsyncFrameSocket(left) as receiver:
        right.close()
        with pytest.raises(PeerClosed, match="end of stream"):
            await receiver.receive()
        assert receiver.fileno() == left.fileno()


def test_sans_io_and_worker_modules_know_no_event_loop() -> None:
    import subprocess
    import sys

    modules = "errors fds fdpass frames frame_socket gojson gotypes protocol unix_address"
    code = f"import sys, {', '.join('manager.urpc.' + name for name in modules.split())}\n"
    code += "sys.exit(' '.join({'anyio', 'asyncio'} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
