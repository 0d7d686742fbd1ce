"""What may be unpacked into an upper layer."""

import tarfile

import pytest

from manager.worker.untar import Caps, Refused, check


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
