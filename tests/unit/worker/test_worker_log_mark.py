"""What a worker notes of the log before it forgets anything."""

from pathlib import Path

from manager.schema import worker as w
from manager.worker.log_mark import LogMarkFile


def mark(position: int) -> w.LogMark:
    return w.LogMark(position=position, leaf_hash=bytes([255, position]), boot_id="boot")


def test_the_next_worker_finds_the_last_mark(tmp_path: Path) -> None:
    path = tmp_path / "log-mark"
    assert LogMarkFile(path).mark is None
    file = LogMarkFile(path)
    for position in (1, 2):
        file.write(mark(position))
        assert file.mark == mark(position)
        assert LogMarkFile(path).mark == mark(position)
    path.write_bytes(path.read_bytes()[:-3])
    assert LogMarkFile(path).mark is None


def test_a_mark_that_cannot_be_replaced_is_of_no_use(tmp_path: Path) -> None:
    path = tmp_path / "log-mark"
    file = LogMarkFile(path)
    file.write(mark(1))
    (tmp_path / "log-mark.new").mkdir()  # in the way, as a full disk is
    file.write(mark(2))
    assert file.mark == mark(2)
    assert LogMarkFile(path).mark is None
