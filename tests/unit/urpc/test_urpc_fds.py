"""One owner per descriptor, and the type shows who."""

import fcntl
import gc
import os
from collections.abc import Callable, Iterator
from operator import attrgetter
from pathlib import Path

import pytest

from manager.urpc.errors import FdEmpty
from manager.urpc.fds import FdBundle, OwnedFd, dup_foreign


def open_count() -> int:
    return len(os.listdir("/proc/self/fd"))


def null() -> OwnedFd:
    return OwnedFd(os.open("/dev/null", os.O_RDWR))


@pytest.fixture(autouse=True)
def no_leak() -> Iterator[None]:
    before = open_count()
    yield
    gc.collect()
    assert open_count() == before


def test_close_is_idempotent_and_empties() -> None:
    fd = null()
    number = fd.number
    assert not fd.closed
    fd.close()
    fd.close()
    assert fd.closed
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)


@pytest.mark.parametrize(
    "use", [OwnedFd.dup, OwnedFd.take, OwnedFd.release, OwnedFd.fileno, attrgetter("number")]
)
def test_an_empty_owner_refuses(use: Callable[[OwnedFd], object]) -> None:
    fd = null()
    fd.close()
    with pytest.raises(FdEmpty, match="this OwnedFd is empty"):
        use(fd)


def test_take_moves() -> None:
    with null() as old:
        number = old.number
        with old.take() as new:
            assert old.closed
            assert new.number == number
        assert old.closed


def test_release_gives_the_number_away() -> None:
    fd = null()
    number = fd.release()
    assert fd.closed
    os.close(number)


def test_dup_is_close_on_exec_and_above_stdio() -> None:
    with null() as fd, fd.dup() as copy:
        assert copy.number != fd.number
        assert copy.number >= 3
        assert fcntl.fcntl(copy.number, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
        assert os.path.sameopenfile(fd.number, copy.number)


def test_dup_never_lands_on_a_closed_stdio_slot() -> None:
    saved = os.dup(0)
    os.close(0)
    try:
        with dup_foreign(saved) as copy, copy.dup() as again:
            assert min(copy.number, again.number) >= 3
    finally:
        os.dup2(saved, 0)
        os.close(saved)


def test_negative_number_is_refused() -> None:
    with pytest.raises(ValueError, match="a descriptor is >= 0, not -1"):
        OwnedFd(-1)


def test_a_leak_warns_and_is_closed() -> None:
    owners = [null()]
    number = owners[0].number
    with pytest.warns(ResourceWarning, match=f"file descriptor {number} was never closed"):
        owners.clear()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)


def test_closing_what_somebody_else_closed_is_reported() -> None:
    fd = null()
    os.close(fd.number)
    with pytest.raises(OSError, match="Bad file descriptor"):
        fd.close()
    assert fd.closed


def test_dup_foreign_takes_numbers_and_file_objects(tmp_path: Path) -> None:
    with (tmp_path / "f").open("w") as file:
        with dup_foreign(file) as by_object, dup_foreign(file.fileno()) as by_number:
            assert os.path.sameopenfile(by_object.number, by_number.number)
        file.write("the owner's own stays open")


def test_dup_foreign_of_a_closed_number_fails() -> None:
    fd = null()
    number = fd.number
    fd.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        dup_foreign(number)


def test_bundle_keeps_order_and_takes_from_the_front() -> None:
    fds = [null() for _ in range(5)]
    numbers = [fd.number for fd in fds]
    with FdBundle(fds) as bundle:
        assert all(fd.closed for fd in fds)
        assert list(bundle.numbers()) == numbers
        with bundle.take(2) as first, bundle.take_first() as third, bundle.take_all() as rest:
            assert list(first.numbers()) == numbers[:2]
            assert third.number == numbers[2]
            assert list(rest.numbers()) == numbers[3:]
            assert rest[1].number == numbers[4]
            assert [fd.number for fd in rest] == numbers[3:]
            assert len(bundle) == 0


@pytest.mark.parametrize("count", [-1, 3])
def test_bundle_refuses_to_take_what_it_has_not(count: int) -> None:
    with FdBundle([null(), null()]) as bundle:
        with pytest.raises(ValueError, match=f"cannot take {count} of 2 descriptors"):
            bundle.take(count)
        assert len(bundle) == 2


def test_taking_the_first_of_none_is_refused() -> None:
    with pytest.raises(ValueError, match="empty bundle"):
        FdBundle().take_first()


def test_bundle_extend_moves_everything() -> None:
    with FdBundle([null()]) as left, FdBundle([null()]) as right:
        left.extend(right)
        assert (len(left), len(right)) == (2, 0)


def test_bundle_dup_is_a_second_set() -> None:
    with FdBundle([null(), null()]) as bundle, bundle.dup() as copy:
        assert not set(bundle.numbers()) & set(copy.numbers())
        assert len(copy) == 2


def test_dup_of_is_all_or_nothing() -> None:
    with null() as good:
        before = open_count()
        with pytest.raises(OSError, match="Bad file descriptor"):
            FdBundle.dup_of([good, good, 999_999])
        assert open_count() == before


def test_bundle_close_goes_on_after_a_failure() -> None:
    bundle = FdBundle([null(), null(), null()])
    os.close(bundle[1].number)
    with pytest.raises(OSError, match="Bad file descriptor"):
        bundle.close()
    assert len(bundle) == 0
