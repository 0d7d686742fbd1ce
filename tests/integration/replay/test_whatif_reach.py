"""What settings cannot reach is not decided anew, and nobody can tell; windows cut no decision."""

import shutil
from collections.abc import Iterable
from pathlib import Path

import anyio
import pytest

import manager.domain.decide
from benchmarks.make_log import make_log
from manager.domain import events as e
from manager.schema.layout import LOG_FILE
from replay.redecide import Redecision, check, whatif
from replay.settings import parse_settings
from replay.trail import Trail, Window
from tests.integration.decided_log import write_story

LOGS = Path(__file__).resolve().parents[2] / "golden" / "logs"
SETTINGS = (
    ("restore-spec-validation=enforce",),
    ("restore-spec-validation=ignore",),
    ("permit=none",),
    ("permit=namespace-paths",),
    ("engine=bwrap",),
    ("engine=runsc", "ignore-namespace-paths=true", "restore-spec-validation=warning"),
)


@pytest.fixture(scope="module", params=["story", "log_v1", "log_v2", "made"])
def log(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("log")
    path = root / LOG_FILE
    match request.param:
        case "story":
            anyio.run(write_story, root)
        case "made":
            anyio.run(lambda: make_log(path, events=3_500, live=10))
        case name:
            shutil.copy(LOGS / f"{name}.db", path)
    return path


async def windows(trail: Trail) -> Iterable[Window]:
    head = await trail.head()
    return [Window(first=1, last=head), Window(first=head // 3, last=head // 2)]


@pytest.mark.parametrize("given", SETTINGS, ids=" ".join)
async def test_the_same_as_if_all_were_decided_anew(log: Path, given: tuple[str, ...]) -> None:
    settings = parse_settings(given)
    async with Trail.open(log) as trail:
        for window in await windows(trail):
            some = [each async for each in whatif(trail, window, settings)]
            every = [each async for each in whatif(trail, window, settings, every=True)]
            assert some == every
            assert some


async def test_what_no_setting_reaches_is_left_to_check(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> e.ContainerSignalRejected:
        return e.ContainerSignalRejected(container="x", signo=9, pid=0, mode=0, error="never")

    monkeypatch.setattr(manager.domain.decide, "decide_signal", refuse)
    settings = parse_settings(["restore-spec-validation=warning"])
    async with Trail.open(log) as trail:
        window = Window(first=1, last=await trail.head())
        some = [each async for each in whatif(trail, window, settings)]
        every = [each async for each in whatif(trail, window, settings, every=True)]
    wrong = [each.position for each in every if each.now == "never"]
    assert wrong
    assert {each.verdict for each in some if each.position in wrong} == {"same"}


async def test_a_window_has_the_decisions_that_begin_in_it(log: Path) -> None:
    async with Trail.open(log) as trail:
        head = min(await trail.head(), 300)
        whole = [each async for each in check(trail, Window(first=1, last=head))]
        assert {each.verdict for each in whole} == {"same"}
        assert len(whole) < head, "some decisions have more than one event"
        for first in range(1, head + 1, 1 if head < 100 else 7):
            last = min(first + 12, head)
            found = [each async for each in check(trail, Window(first=first, last=last))]
            assert found == within(whole, first, last)


def within(whole: list[Redecision], first: int, last: int) -> list[Redecision]:
    return [each for each in whole if first <= each.position <= last]
