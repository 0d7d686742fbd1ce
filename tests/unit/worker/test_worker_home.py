"""HOME for a spec that has none."""

import os
from pathlib import Path

import pytest

from manager.worker.home import with_home

PASSWD = "root:x:0:0::/root:/bin/sh\nbroken line\nnobody:x:7:7:::\nmoth:x:1000:1000:M:/home/m:/x\n"


@pytest.mark.parametrize(
    ("uid", "home"), [(0, "/root"), (1000, "/home/m"), (7, "/"), (4242, "/"), (100, "/")]
)
def test_it_is_looked_up(tmp_path: Path, uid: int, home: str) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text(PASSWD)
    assert with_home(["A=b"], tmp_path, uid) == ["A=b", f"HOME={home}"]


def test_a_given_one_stays(tmp_path: Path) -> None:
    assert with_home(["HOME=", "A=b"], tmp_path, 0) == ["HOME=", "A=b"]


def test_only_a_file_inside_the_root_is_read(tmp_path: Path) -> None:
    outside = tmp_path / "passwd"
    outside.write_text("root:x:0:0::/outside:/bin/sh\n")
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    target = root / "etc/passwd"
    assert with_home([], root, 0) == ["HOME=/"]
    for link in (str(outside), "../../passwd", "passwd"):
        target.symlink_to(link)
        assert with_home([], root, 0) == ["HOME=/"], link
        target.unlink()
    os.mkfifo(target)
    assert with_home([], root, 0) == ["HOME=/"]
    target.unlink()
    (root / "real").write_text("root:x:0:0::/inside:/bin/sh\n")
    target.symlink_to("/real")
    assert with_home([], root, 0) == ["HOME=/inside"]
