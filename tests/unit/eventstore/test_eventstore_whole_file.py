"""Keys that are whole or not there: half of one would keep a service from ever starting again."""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from eventstore import KeyUnusable, load_signer, load_verifier
from eventstore.whole_file import create_whole, replace_whole
from manager.adapters.identity import ENV_KEY_BYTES, load_env_key


def fail(_: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("make", "wrong"),
    [(load_env_key, OSError), (load_signer, KeyUnusable)],
    ids=["env", "log"],
)
def test_a_full_disk_leaves_no_half_of_a_key(
    make: Callable[[Path], object],
    wrong: type[Exception],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "keys" / "some.key"
    with monkeypatch.context() as full:
        full.setattr(os, "fsync", fail)
        with pytest.raises(wrong, match="No space left"):
            make(path)
    assert list(path.parent.iterdir()) == []
    make(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_is_there_stays(tmp_path: Path) -> None:
    path = tmp_path / "env.key"
    key = load_env_key(path)
    create_whole(path, bytes(ENV_KEY_BYTES), 0o600)
    assert load_env_key(path) == key
    assert [each.name for each in tmp_path.iterdir()] == ["env.key"]


def test_the_verifier_key_that_was_not_written_is_written_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log.key"
    signer = load_signer(path)
    public = tmp_path / "log.key.pub"
    public.unlink()
    with monkeypatch.context() as full:
        full.setattr(os, "fsync", fail)
        load_signer(path)
    assert not public.exists()
    load_signer(path)
    assert load_verifier(public).name == signer.verifier.name


def test_a_file_is_on_disk_before_it_takes_the_place_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rename alone may reach the disk before the content does: the file is empty then."""
    path = tmp_path / "some.note"
    path.write_text("before")
    synced: list[tuple[str, str]] = []
    fsync = os.fsync

    def note(fd: int) -> None:
        synced.append((Path(os.readlink(f"/proc/self/fd/{fd}")).name, path.read_text()))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", note)
    with replace_whole(path) as file:
        file.write("after")
    assert synced == [(f".some.note.{os.getpid()}", "before"), (tmp_path.name, "after")]
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be_written_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "some.note"
    path.write_text("before")
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"), replace_whole(path) as file:
        file.write("after")
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_system_that_keeps_no_names_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "some.note"
    number = errno.EINVAL

    def refuse(fd: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{fd}"):
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    with replace_whole(path) as file:
        file.write("after")
    assert path.read_text() == "after"
    number = errno.EIO
    with pytest.raises(OSError, match="Input/output"), replace_whole(path) as file:
        file.write("again")
