"""What may be unpacked into an upper layer."""

import io
import os
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path

import pytest

from manager.worker import untar
from manager.worker.untar import Caps, Refused, check
from tests.patience import PATIENCE_S

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="chroot(2) is root's")


def member(name, kind=tarfile.REGTYPE, target="", device=(0, 0), size=0):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, target, size
    info.devmajor, info.devminor = device
    return info


@pytest.mark.parametrize(
    "good",
    [
        member("a/b"),
        member("./a"),
        member("a..b/..c"),
        member("d", tarfile.DIRTYPE),
        member("link", tarfile.SYMTYPE, "/etc/passwd"),
        member("a/link", tarfile.SYMTYPE, "../b"),
        member("hard", tarfile.LNKTYPE, "a/b"),
        member("whiteout", tarfile.CHRTYPE, device=(0, 0)),
        member("fifo", tarfile.FIFOTYPE),
    ],
)
def test_accepted(good):
    check(good)


@pytest.mark.parametrize(
    "bad",
    [
        member("/etc/passwd"),
        member("../x"),
        member("a/../../x"),
        member("link", tarfile.SYMTYPE, ".."),
        member("a/link", tarfile.SYMTYPE, "../../x"),
        member("hard", tarfile.LNKTYPE, "/etc/shadow"),
        member("hard", tarfile.LNKTYPE, "../x"),
        member("null", tarfile.CHRTYPE, device=(1, 3)),
        member("sda", tarfile.BLKTYPE, device=(0, 0)),
        member("odd", b"Z"),
    ],
)
def test_refused(bad):
    with pytest.raises(Refused, match=repr(bad.name)):
        check(bad)


def test_entries_are_counted():
    caps = Caps(entries=2)
    caps.admit(member("a"))
    caps.admit(member("b"))
    with pytest.raises(Refused, match="more than 2 entries"):
        caps.admit(member("c"))


def test_bytes_are_counted():
    caps = Caps(size_bytes=10)
    caps.admit(member("a", size=10))
    with pytest.raises(Refused, match="more than 10 bytes"):
        caps.admit(member("b", size=1))


def unpack(directory: Path, archive: bytes) -> subprocess.CompletedProcess[str]:
    """Run the script as the worker does."""
    upper, tar = os.open(directory, os.O_RDONLY), os.memfd_create("archive")
    os.write(tar, archive)
    os.lseek(tar, 0, os.SEEK_SET)
    try:
        return subprocess.run(
            [sys.executable, "-I", untar.__file__, str(upper), str(tar)],
            pass_fds=(upper, tar),
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
    finally:
        os.close(upper)
        os.close(tar)


def archive_of(name: str, kind: bytes = tarfile.REGTYPE, **headers: str) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.pax_headers = kind, "nowhere", headers
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(info)
    return made.getvalue()


@as_root
@pytest.mark.parametrize(
    "archive",
    [
        archive_of("a", path="a\0b"),
        archive_of("a", mtime="nan"),
        archive_of("a", mtime="1e300"),
        archive_of("a", **{"GNU.sparse.map": "0,x"}),
        archive_of("/".join("d" * 3000)),
        archive_of("a", tarfile.LNKTYPE),
        bytes(100) + b"x" * 900,
    ],
    ids=["nul", "nan", "late", "sparse", "deep", "link", "garbage"],
)
def test_what_no_honest_archive_has_is_told_in_one_line(tmp_path: Path, archive: bytes) -> None:
    ended = unpack(tmp_path, archive)
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1, ended.stderr


@as_root
def test_a_module_of_the_archive_is_never_imported(tmp_path: Path) -> None:
    library = tmp_path / sysconfig.get_path("stdlib").lstrip("/")
    library.mkdir(parents=True)
    (library / "colorsys.py").write_text("print('the archive runs')")
    script = """
import importlib.util, os, sys
spec = importlib.util.spec_from_file_location("untar", sys.argv[1])
untar = importlib.util.module_from_spec(spec)
spec.loader.exec_module(untar)
untar.shut_in(os.open(sys.argv[2], os.O_RDONLY))
try:
    import colorsys
except ImportError:
    print("nothing is imported")
"""
    ended = subprocess.run(
        [sys.executable, "-I", "-c", script, untar.__file__, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert ended.stdout == "nothing is imported\n", ended.stderr
