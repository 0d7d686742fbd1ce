"""Who goes with a process that was executed, by the table of a container's processes."""

from manager.schema.observation import ProcessFacts
from manager.worker.executed import descendants


def process(pid: int, ppid: int) -> ProcessFacts:
    return ProcessFacts(
        launch_id="L",
        uid=0,
        gid=0,
        pid=pid,
        ppid=ppid,
        pgid=0,
        sid=0,
        threads=(pid,),
        tty="?",
        started_ns=0,
        cpu_ns=0,
        name="",
    )


def test_children_of_children_and_nobody_of_inits() -> None:
    table = [process(9, 7), process(1, 0), process(2, 1), process(5, 0), process(7, 5)]
    assert descendants(frozenset({5, 6}), table) == {5, 7, 9}


def test_one_that_has_two_ways_into_the_table() -> None:
    table = [process(5, 0), process(6, 5)]
    assert descendants(frozenset({5, 6}), table) == {5, 6}
