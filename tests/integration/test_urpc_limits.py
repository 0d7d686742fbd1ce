"""What clients may hold together, and clients that never finish, never read, never leave."""

import contextlib
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from manager.urpc.load import Load, LoadLimits
from manager.urpc.protocol import Reply, Request
from manager.urpc.server_aio import UrpcServer
from manager.urpc.unix_address import UnixListener
from tests.integration.test_urpc_socket import OK, Peer, failure, open_count
from tests.patience import PATIENCE_S

WHOLE = json.dumps({"method": "Echo", "arg": None}).encode()
AT_ONCE = "too much at once: unfinished calls hold {} at most, try again later"


async def echo(request: Request) -> Reply:
    """Answers with what was asked, so that a reply can be made long."""
    return Reply(result={} if request.method == "Echo" else "x" * (8 << 20))


@asynccontextmanager
async def served(path: Path, load: Load, **options: Any) -> AsyncIterator[UrpcServer]:
    server = UrpcServer(echo, load=load, **options)
    async with anyio.create_task_group() as group:
        await group.start(server.serve, UnixListener.bind(path))
        yield server
        server.stop(answer_waits=True)


async def until(condition: Any) -> None:
    """Wait for what another task does next."""
    with anyio.fail_after(PATIENCE_S):
        while not condition():
            await anyio.sleep(0.001)


async def test_connections_to_all_sockets_count_together(tmp_path: Path) -> None:
    load = Load(LoadLimits(connections_max=2))
    one, two = tmp_path / "1", tmp_path / "2"
    async with served(one, load), served(two, load):
        with Peer(one) as first:
            with Peer(two) as second:
                assert await first.call("Echo") == await second.call("Echo") == OK
                with Peer(two) as third:
                    text = "too many connections: this service has 2 at most"
                    assert await third.reply() == failure(text)
                assert await first.call("Echo") == OK
            await until(lambda: load.connections == 1)
            with Peer(two) as fourth:
                assert await fourth.call("Echo") == OK
        await until(lambda: load.connections == 0)


async def test_files_beyond_the_limit_are_refused_and_closed(tmp_path: Path) -> None:
    load = Load(LoadLimits(files_max=3))
    null = os.open(os.devnull, os.O_RDONLY)
    async with served(tmp_path / "s", load):
        with Peer(tmp_path / "s") as holder, Peer(tmp_path / "s") as other:
            await holder.send(WHOLE[:5], [null] * 3)
            await until(lambda: load.files == 3)
            held = open_count()
            assert await other.call("Echo", None, [null]) == failure(AT_ONCE.format("3 files"))
            assert open_count() == held
            assert await other.call("Echo") == OK, "one without files goes through"
            await holder.send(WHOLE[5:])
            assert await holder.reply() == OK, "what was admitted is carried out"
            await until(lambda: load.files == 0)
            assert await other.call("Echo", None, [null]) == OK
    os.close(null)


async def test_bytes_beyond_the_limit_are_refused(tmp_path: Path) -> None:
    load = Load(LoadLimits(buffered_bytes_max=1000))
    async with served(tmp_path / "s", load):
        with Peer(tmp_path / "s") as holder, Peer(tmp_path / "s") as other:
            await holder.send(b'{"method":"Echo","arg":"' + b"x" * 600)
            await until(lambda: load.buffered_bytes > 600)
            refused = failure(AT_ONCE.format("1000 bytes"))
            assert await other.call("Echo", "y" * 500) == refused
            assert await other.call("Echo") == OK
            await holder.send(b'"}')
            assert await holder.reply() == OK
            await until(lambda: load.buffered_bytes == 0)
            assert await other.call("Echo", "y" * 500) == OK


async def test_a_request_that_is_never_finished_is_given_up(tmp_path: Path) -> None:
    load = Load()
    null = os.open(os.devnull, os.O_RDONLY)
    async with served(tmp_path / "s", load, patience_s=0.05):
        with Peer(tmp_path / "s") as idle, Peer(tmp_path / "s") as loris:
            assert await idle.call("Echo") == OK
            before = open_count()
            await loris.send(WHOLE[:3], [null] * 100)
            with contextlib.suppress(BrokenPipeError), anyio.fail_after(PATIENCE_S):
                for byte in b'od":"' + b"x" * 100_000:
                    await loris.send(bytes([byte]))
                    await anyio.sleep(0.005)
            assert await loris.reply() is None
            assert (load.files, load.buffered_bytes, load.connections) == (0, 0, 1)
            assert open_count() == before - 1
            assert await idle.call("Echo") == OK, "between calls there is no hurry"
    os.close(null)


async def test_a_client_that_reads_nothing_is_given_up(tmp_path: Path) -> None:
    load = Load()
    null = os.open(os.devnull, os.O_RDONLY)
    async with served(tmp_path / "s", load, patience_s=0.05):
        with Peer(tmp_path / "s") as deaf:
            await deaf.send(b'{"method":"Long","arg":null}', [null] * 128)
            await until(lambda: load.connections == 1)
            await until(lambda: load.connections == 0)
            assert (load.files, load.buffered_bytes) == (0, 0)
    os.close(null)


@pytest.mark.parametrize("part", [b"", WHOLE[:1], WHOLE[:-1]])
async def test_a_half_open_client_leaves_nothing(tmp_path: Path, part: bytes) -> None:
    load = Load()
    async with served(tmp_path / "s", load):
        with Peer(tmp_path / "s") as peer:
            await peer.send(part)
            peer.half_close()
            assert await peer.reply() is None
        await until(lambda: load.connections == 0)
        assert (load.files, load.buffered_bytes) == (0, 0)


@pytest.mark.parametrize(
    ("open_files", "connections", "files"),
    [(1 << 20, 1024, 8192), (20_000, 1024, 8192), (1024, 128, 512)],
)
def test_a_process_with_few_descriptors_has_smaller_limits(
    open_files: int, connections: int, files: int
) -> None:
    limits = LoadLimits.of_process(open_files)
    assert (limits.connections_max, limits.files_max) == (connections, files)
