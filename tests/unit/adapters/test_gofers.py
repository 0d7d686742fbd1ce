"""Host directories in the place of gofer connections."""

import errno
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from manager.adapters.gofers import replace_gofers
from manager.urpc.fds import FdBundle, OwnedFd


def spec_with(root: Path, *binds: Path) -> dict[str, Any]:
    mounts = [{"destination": "/proc", "type": "proc", "source": "proc"}]
    mounts += [{"destination": "/b", "type": "bind", "source": str(bind)} for bind in binds]
    return {"ociVersion": "1.0.2", "root": {"path": str(root)}, "mounts": mounts}


def sockets(count: int) -> FdBundle:
    return FdBundle([OwnedFd(socket.socket(socket.AF_UNIX).detach()) for _ in range(count)])


def file() -> OwnedFd:
    return OwnedFd(os.open(os.devnull, os.O_RDONLY))


def test_the_last_ones_are_replaced_in_order(tmp_path: Path) -> None:
    bind = tmp_path / "bind"
    bind.touch()
    donated = sockets(2)
    files = FdBundle([file(), *donated.take_all()])
    paths, replaced = replace_gofers(spec_with(tmp_path, bind), files)
    with replaced:
        assert paths == (str(tmp_path), str(bind))
        inodes = [os.fstat(fd.number).st_ino for fd in replaced]
        assert inodes == [os.stat(os.devnull).st_ino, tmp_path.stat().st_ino, bind.stat().st_ino]
    assert len(files) == 0


@pytest.mark.parametrize("count", [0, 1, 2])
def test_what_is_not_wholly_a_gofers_stays_as_it_is(tmp_path: Path, count: int) -> None:
    files = FdBundle([*sockets(count).take_all(), file()])
    paths, same = replace_gofers(spec_with(tmp_path, tmp_path), files)
    with same:
        assert (paths, len(same)) == ((), count + 1)


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    files = sockets(1)
    with pytest.raises(FileNotFoundError) as caught:
        replace_gofers(spec_with(tmp_path / "gone"), files)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOENT, str(tmp_path / "gone"))
    assert len(files) == 0
