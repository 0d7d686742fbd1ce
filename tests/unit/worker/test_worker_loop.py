"""The loop: what a task waits for, how long, and how it is interrupted."""

import os
import subprocess
import sys

import pytest

from manager.schema import worker as w
from manager.worker.ends import Ends
from manager.worker.errors import LaunchAborted, LaunchFailed
from manager.worker.loop import Child, Loop, Pause
from manager.worker.outbox import Outbox


@pytest.fixture
def loop():
    loop = Loop()
    yield loop
    loop.close()


def run(loop, steps):
    def whole():
        try:
            yield from steps
        finally:
            loop.stop()

    task = loop.start(whole())
    if not task.done:
        loop.run()


def test_a_readable_descriptor_and_a_timeout(loop):
    read_end, write_end = os.pipe()
    seen = []

    def steps():
        seen.append((yield Pause(fd=read_end, seconds=0.01)))
        os.write(write_end, b"x")
        seen.append((yield Pause(fd=read_end, seconds=10)))
        seen.append((yield Pause(seconds=0)))

    run(loop, steps())
    assert seen == [False, True, False]
    os.close(read_end)
    os.close(write_end)


def test_a_child_before_and_after_it_ended(loop):
    child = Child(1)
    seen = []

    def steps():
        loop.call_later(0, lambda: child.settle(9, 1))
        seen.append((yield Pause(child=child, seconds=10)))
        seen.append((yield Pause(child=child, seconds=10)))

    run(loop, steps())
    assert seen == [True, True]
    assert child.status == 9


def test_an_interrupted_task_cleans_up_and_may_wait_for_it(loop):
    seen = []

    def steps():
        try:
            yield Pause(seconds=100)
        except LaunchFailed as error:
            seen.append(error.stage)
            seen.append((yield Pause(seconds=0)))
        loop.stop()

    task = loop.start(steps())
    loop.call_later(0, lambda: task.throw(LaunchAborted()))
    loop.run()
    assert seen == ["aborted", False]
    assert task.done
    with pytest.raises(RuntimeError):
        task.throw(LaunchAborted())


def test_a_crash_in_a_task_is_logged_and_ends_only_it(loop, caplog):
    def steps():
        yield Pause(seconds=0)
        raise ZeroDivisionError

    task = loop.start(steps())
    loop.call_later(0.01, loop.stop)
    loop.run()
    assert task.done
    assert "worker.task_crashed" in caplog.text


def test_a_cancelled_timer_does_not_fire(loop):
    fired = []
    loop.call_later(0, lambda: fired.append(1)).cancel()
    loop.call_later(0.01, loop.stop)
    loop.run()
    assert fired == []


def held(seq):
    return w.Held(seq=seq, hold_id=f"h{seq}")


def exited(seq):
    return w.Exited(seq=seq, launch_id="l", status=0, source="waitid", exited_at_ns=1)


def test_outcomes_are_kept_until_acknowledged():
    sent = []
    outbox = Outbox(sent.append)
    for _ in range(3):
        outbox.put(held(outbox.next_seq()))
    outbox.acknowledge(2)
    sent.clear()
    assert outbox.send_again()
    assert [each.seq for each in sent] == [3]
    assert not outbox.send_again("h1")
    assert not outbox.send_again("h3", w.Killed)
    assert outbox.next_seq() == 4


def test_news_is_what_no_later_worker_could_tell(tmp_path):
    ends = Ends(tmp_path / "ends")
    outbox = Outbox(lambda _: None, ends)
    outbox.put(held(outbox.next_seq()))
    outbox.put(w.Destroyed(seq=outbox.next_seq(), launch_id="l", leftovers=()))
    outbox.put(exited(outbox.next_seq()))
    assert not outbox.has_news
    assert [each.launch_id for each in ends.read()] == ["l"]
    outbox.put(w.Killed(seq=outbox.next_seq(), kill_id="k"))
    assert outbox.has_news
    outbox.acknowledge(4)
    assert not outbox.has_news


def test_what_no_log_waits_for_is_said_once():
    sent = []
    outbox = Outbox(sent.append)
    killed = w.Killed(seq=outbox.next_seq(), kill_id="k")
    outbox.say(killed)
    assert sent == [killed]
    assert not outbox.has_news
    assert not outbox.send_again()


def test_an_end_that_could_not_be_written_is_news(tmp_path):
    ends = Ends(tmp_path / "ends")
    (tmp_path / "ends").rmdir()
    outbox = Outbox(lambda _: None, ends)
    outbox.put(exited(outbox.next_seq()))
    assert outbox.has_news


def test_the_worker_knows_neither_event_loop_nor_store():
    code = (
        "import sys, manager.worker.__main__; "
        "print([m for m in ('asyncio', 'anyio', 'aiosqlite', 'sqlite3', 'eventstore', "
        "'manager.application', 'manager.adapters') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
