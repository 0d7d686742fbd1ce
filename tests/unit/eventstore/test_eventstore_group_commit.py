"""Group commit and back-pressure, over a commit that the test holds in its hand."""

import asyncio
from collections.abc import Sequence

import anyio
import pytest

from eventstore import ANY, EventStoreError, NewEvent, StoreClosed, StoreFull, WrongExpectedVersion
from eventstore import limits as store_limits
from eventstore.byte_budget import ByteBudget
from eventstore.group_commit import GroupCommit, Outcome
from eventstore.submission import Submission, prepare
from tests.patience import PATIENCE_S


class HeldCommit:
    """Notes batches and ends each when told to."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.begun = anyio.Event()
        self.ends: list[asyncio.Future[None]] = []
        self.outcomes: dict[str, Outcome] = {}

    async def __call__(self, batch: Sequence[Submission]) -> Sequence[Outcome]:
        self.batches.append([submission.stream for submission in batch])
        self.begun.set()
        end = asyncio.get_running_loop().create_future()
        self.ends.append(end)
        await end
        return [self.outcomes.get(submission.stream, ()) for submission in batch]


def submission(stream: str, *, events: int = 1, size: int = 0) -> Submission:
    data = b'"' + b"x" * size + b'"'
    return prepare(stream, [NewEvent(type="t", data=data) for _ in range(events)], ANY)


async def settle() -> None:
    for _ in range(10):
        await anyio.lowlevel.checkpoint()


async def test_whoever_waits_during_a_commit_goes_into_the_next_together() -> None:
    commit = HeldCommit()
    commits = GroupCommit(commit)
    async with anyio.create_task_group() as tasks:
        for name in "abcd":
            tasks.start_soon(commits.submit, submission(name))
            await settle()
        assert commit.batches == [["a"]]
        commit.ends[0].set_result(None)
        await settle()
        assert commit.batches == [["a"], ["b", "c", "d"]]
        commit.ends[1].set_result(None)


@pytest.mark.parametrize(
    ("sizes", "batches"),
    [
        ([(1, 0), (600, 0), (600, 0), (424, 0), (1, 0)], [["0"], ["1"], ["2", "3"], ["4"]]),
        (
            [(1, 0), (1, store_limits.BATCH_BYTES_MAX), (1, 0), (1, 0)],
            [["0"], ["1"], ["2", "3"]],
        ),
    ],
    ids=["events", "bytes"],
)
async def test_a_batch_is_bounded(sizes: list[tuple[int, int]], batches: list[list[str]]) -> None:
    commit = HeldCommit()
    commits = GroupCommit(commit)
    async with anyio.create_task_group() as tasks:
        for number, (events, size) in enumerate(sizes):
            tasks.start_soon(commits.submit, submission(str(number), events=events, size=size))
            await settle()
        for number in range(len(batches)):
            await settle()
            commit.ends[number].set_result(None)
    assert commit.batches == batches


async def test_each_append_of_a_batch_has_its_own_outcome() -> None:
    commit = HeldCommit()
    commit.outcomes["b"] = WrongExpectedVersion("b", ANY, 3)
    commits = GroupCommit(commit)
    heard: dict[str, object] = {}

    async def submit(name: str) -> None:
        try:
            heard[name] = await commits.submit(submission(name))
        except EventStoreError as error:
            heard[name] = error

    async with anyio.create_task_group() as tasks:
        for name in "abc":
            tasks.start_soon(submit, name)
        await commit.begun.wait()
        commit.ends[0].set_result(None)

    assert heard == {"a": (), "b": commit.outcomes["b"], "c": ()}


@pytest.mark.parametrize("error", [StoreFull("log"), ZeroDivisionError("a bug")])
async def test_a_commit_that_fails_fails_its_batch_and_no_other(error: Exception) -> None:
    commit = HeldCommit()
    commits = GroupCommit(commit)
    failed: list[Exception] = []

    async def submit(name: str) -> None:
        try:
            await commits.submit(submission(name))
        except (StoreFull, ZeroDivisionError) as caught:
            failed.append(caught)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(submit, "a")
        tasks.start_soon(submit, "b")
        await commit.begun.wait()
        commit.ends[0].set_exception(error)
        await settle()
        assert failed == [error, error]
        tasks.start_soon(submit, "c")
        await settle()
        commit.ends[1].set_result(None)

    assert commit.batches == [["a", "b"], ["c"]]
    assert len(failed) == 2


async def test_a_caller_that_is_torn_away_does_not_disturb_the_others() -> None:
    commit = HeldCommit()
    commit.outcomes["a"] = WrongExpectedVersion("a", ANY, 3)
    commits = GroupCommit(commit)
    first = asyncio.create_task(commits.submit(submission("a")))
    second = asyncio.create_task(commits.submit(submission("b")))
    await commit.begun.wait()

    first.cancel()
    await settle()
    assert first.cancelled()
    commit.ends[0].set_result(None)

    assert await second == ()


async def test_a_caller_is_shielded_while_its_append_is_queued() -> None:
    commit = HeldCommit()
    commits = GroupCommit(commit)
    ended: list[str] = []

    async def submit(name: str) -> None:
        await commits.submit(submission(name))
        ended.append(name)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(submit, "a")
        tasks.start_soon(submit, "b")
        await commit.begun.wait()
        tasks.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            await settle()
        assert ended == []
        commit.ends[0].set_result(None)

    assert ended == ["a", "b"]


async def test_an_append_beyond_the_budget_waits_and_may_be_cancelled() -> None:
    commit = HeldCommit()
    one = submission("a").size_bytes
    commits = GroupCommit(commit, pending_bytes_max=2 * one)
    async with anyio.create_task_group() as tasks:
        for name in "abc":
            tasks.start_soon(commits.submit, submission(name))
        await settle()
        with anyio.move_on_after(0) as scope:
            await commits.submit(submission("never"))
        assert scope.cancelled_caught
        assert commit.batches == [["a", "b"]]
        commit.ends[0].set_result(None)
        await settle()
        assert commit.batches == [["a", "b"], ["c"]]
        commit.ends[1].set_result(None)


async def test_close_answers_what_is_queued_and_refuses_what_comes() -> None:
    commit = HeldCommit()
    one = submission("a").size_bytes
    commits = GroupCommit(commit, pending_bytes_max=2 * one)
    answers = [asyncio.create_task(commits.submit(submission(name))) for name in "abcdef"]
    await commit.begun.wait()

    closing = asyncio.create_task(commits.close())
    await settle()
    assert not closing.done()
    commit.ends[0].set_result(None)
    await closing

    assert [await answer for answer in answers[:2]] == [(), ()]
    for refused in (*answers[2:], commits.submit(submission("g"))):
        with pytest.raises(StoreClosed):
            await refused


async def test_a_drain_that_is_torn_away_cancels_who_waits_for_it() -> None:
    commit = HeldCommit()
    commits = GroupCommit(commit)
    first = asyncio.create_task(commits.submit(submission("a")))
    await commit.begun.wait()
    second = asyncio.create_task(commits.submit(submission("b")))
    await settle()

    (drain,) = [
        task for task in asyncio.all_tasks() if task.get_name() == "eventstore-group-commit"
    ]
    drain.cancel()
    await asyncio.wait([first, second])

    assert first.cancelled()
    assert second.cancelled()


# --- the budget ----------------------------------------------------------------------------------


async def test_budget_is_granted_in_the_order_of_asking() -> None:
    budget = ByteBudget(10)
    granted: list[int] = []

    async def take(amount: int) -> None:
        await budget.reserve(amount)
        granted.append(amount)

    await budget.reserve(8)
    tasks = [asyncio.create_task(take(amount)) for amount in (5, 1, 9)]
    await settle()
    assert granted == []

    budget.release(3)
    await settle()
    assert granted == [5]
    budget.release(5)
    await settle()
    assert granted == [5, 1]
    budget.release(6)
    await settle()
    assert granted == [5, 1, 9]
    await asyncio.wait(tasks)


async def test_whoever_stops_waiting_lets_the_next_one_through() -> None:
    budget = ByteBudget(10)
    await budget.reserve(8)
    large = asyncio.create_task(budget.reserve(9))
    small = asyncio.create_task(budget.reserve(2))
    await settle()

    large.cancel()
    await settle()

    assert small.done()


async def test_what_was_granted_to_somebody_torn_away_is_given_back() -> None:
    budget = ByteBudget(10)
    await budget.reserve(10)
    waiting = asyncio.create_task(budget.reserve(10))
    await settle()

    budget.release(10)
    waiting.cancel()
    await asyncio.wait([waiting])

    assert waiting.cancelled()
    with anyio.fail_after(PATIENCE_S):
        await budget.reserve(10)


async def test_nobody_waits_for_more_than_there_is() -> None:
    with pytest.raises(ValueError, match="11 bytes in one piece, but there are 10 in all"):
        await ByteBudget(10).reserve(11)
