"""A connection of a manager: who left has been heard to the end."""

import socket

import pytest

from manager.urpc.frame_socket import FrameSocket
from manager.worker.connection import Connection
from manager.worker.loop import Loop


class Answering:
    """Answers everything, and ends the loop with the connection."""

    def __init__(self, loop):
        self._loop = loop
        self.heard = []

    def received(self, connection, body, fds):
        self.heard.append(body)
        connection.send(b"answer to " + body)

    def closed(self, connection):
        self._loop.stop()


@pytest.fixture
def loop():
    loop = Loop()
    yield loop
    loop.close()


def test_all_that_a_peer_said_is_received_though_it_has_left(loop):
    ours, theirs = socket.socketpair()
    with FrameSocket(theirs) as peer:
        for number in range(3):
            peer.send(b"%d" % number)
    receiver = Answering(loop)
    Connection(loop, FrameSocket(ours), receiver)
    loop.run()
    assert receiver.heard == [b"0", b"1", b"2"]


def test_a_peer_that_reads_nothing_and_leaves_is_heard_as_well(loop):
    ours, theirs = socket.socketpair()
    peer = FrameSocket(theirs)
    receiver = Answering(loop)
    connection = Connection(loop, FrameSocket(ours), receiver)
    connection.send(bytes(1 << 20))  # more than a socket takes: the rest waits
    peer.send(b"last")
    peer.close()
    loop.run()
    assert receiver.heard == [b"last"]
