"""How a container's streams are told to CRIU: of real pipes, files, sockets and terminals."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from manager.worker.criu_streams import (
    StreamLost,
    check_kinds,
    check_successors,
    keys_of,
    kind_of,
    options_to_restore,
    options_to_save,
    read_keys,
)

FILE_KEY, FIFO_KEY, PIPE_KEY = "file[1b:14ea10b]", "fifo[1b:2]", "pipe:[7]"


@pytest.fixture
def fds(tmp_path: Path) -> Iterator[dict[str, int]]:
    os.mkfifo(tmp_path / "fifo")
    ours, theirs = socket.socketpair()
    read_end, write_end = os.pipe()
    master, terminal = os.openpty()
    append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    opened = {
        "socket": theirs.detach(),
        "peer": ours.detach(),
        "pipe": write_end,
        "read": read_end,
        "master": master,
        "terminal": terminal,
        "null": os.open("/dev/null", os.O_RDWR),
        "zero": os.open("/dev/zero", os.O_RDONLY),
        "fifo": os.open(tmp_path / "fifo", os.O_RDWR),
        "append": os.open(tmp_path / "append", append),
        "write": os.open(tmp_path / "write", os.O_WRONLY | os.O_CREAT),
        "lines": os.open("/etc/passwd", os.O_RDONLY),
    }
    yield opened
    for fd in opened.values():
        os.close(fd)


def test_kinds(fds: dict[str, int]) -> None:
    kinds = {name: kind_of(fd) for name, fd in fds.items()}
    assert kinds["pipe"] == kinds["read"] == os.readlink(f"/proc/self/fd/{fds['pipe']}")
    found = [kinds[name] for name in ("null", "zero", "fifo", "append", "lines", "terminal")]
    assert found == ["/dev/null", "device", "fifo", "file", "file", "terminal"]
    assert kinds["socket"] == "socket"


@pytest.mark.parametrize("kind", ["socket", "terminal", "device", "pipe:[x]"])
def test_kinds_that_are_refused_by_name(kind: str) -> None:
    check_kinds(["/dev/null", "file", PIPE_KEY])
    with pytest.raises(StreamLost, match=r"^stderr is a "):
        check_kinds(["fifo", PIPE_KEY, kind])


def test_keys_of_a_process_that_has_its_files_from_its_own_mounts() -> None:
    # Whatever this process has open is of its own mounts: nothing of it is outside.
    assert keys_of(os.getpid(), ["/dev/null", PIPE_KEY, "file"]) == ["/dev/null", PIPE_KEY, ""]


def test_options() -> None:
    keys = [FILE_KEY, FIFO_KEY, FIFO_KEY]
    assert list(options_to_save(["/dev/null", PIPE_KEY, ""])) == []
    assert list(options_to_save(keys)) == ["external file[1b:14ea10b]", "external file[1b:2]"]
    assert list(options_to_restore(["/dev/null", PIPE_KEY, ""])) == []
    assert list(options_to_restore(keys)) == [
        "inherit-fd fd[0]:file[1b:14ea10b]",
        "inherit-fd fd[1]:file[1b:2]",
    ]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[1, 2, 3]",
        b'["/dev/null", "/dev/null"]',
        b'["/dev/null", "/dev/null", "/dev/null", "/dev/null"]',
        b'["/dev/null", "/dev/null", "pipe:[1]\\nexternal mnt[]"]',
        b'["/dev/null", "/dev/null", "file[1:2]:x"]',
        b'["/dev/null", "/dev/null", "\\ud800"]',
        b"[" * 100_000,
    ],
)
def test_keys_that_are_none(content: bytes) -> None:
    assert read_keys(b'["/dev/null", "", "fifo[1:2]"]') == ["/dev/null", "", "fifo[1:2]"]
    with pytest.raises(StreamLost, match="the image does not tell its streams"):
        read_keys(content)


@pytest.mark.parametrize(
    ("keys", "names", "text"),
    [
        (("/dev/null", PIPE_KEY, ""), ("null", "append", "socket"), ""),
        (("", PIPE_KEY, PIPE_KEY), ("socket", "pipe", "pipe"), ""),
        ((FILE_KEY, "file[1:3]", FIFO_KEY), ("lines", "append", "socket"), ""),
        (("/dev/null", "", ""), ("pipe", "null", "null"), "stdin was /dev/null when it was saved"),
        ((PIPE_KEY, FIFO_KEY, PIPE_KEY), ("pipe", "null", "read"), ""),
        ((PIPE_KEY, "", PIPE_KEY), ("pipe", "null", "fifo"), "stdin and stderr were one when"),
        ((FILE_KEY, "", ""), ("fifo", "null", "null"), "stdin was a file when it was saved"),
        (("", FILE_KEY, ""), ("null", "write", "null"), "runc would leave a hole in a file: open"),
    ],
)
def test_what_can_come_in_their_place(
    fds: dict[str, int], keys: tuple[str, ...], names: tuple[str, ...], text: str
) -> None:
    stdio = [fds[name] for name in names]
    if not text:
        check_successors(keys, stdio)
        return
    with pytest.raises(StreamLost, match=text):
        check_successors(keys, stdio)
