"""Who a recorded decision answers, as far as its first event tells, and what settings reach."""

from typing import get_args

import pytest

from manager.domain import commands as c
from manager.schema.events import EVENT_TYPES
from replay.reach import ASKED, ASKED_WITHOUT, REPORTED, Reach, origin_of
from replay.settings import parse_settings

UNCLEAR = {
    "sandbox.stopped", "sandbox.deleted", "restore.validated", "sandbox.restored",
    "sandbox.restore_failed", "sandbox.paused", "sandbox.resumed", "sandbox.pause_rejected",
    "container.paused", "container.resumed",
}  # fmt: skip


def test_each_type_of_event_has_its_place() -> None:
    places = [set(ASKED), set(REPORTED), set(ASKED_WITHOUT), UNCLEAR]
    assert set().union(*places) == set(EVENT_TYPES)
    assert sum(map(len, places)) == len(EVENT_TYPES)
    assert {tag for tag in EVENT_TYPES if origin_of(tag, {}) == "unclear"} == UNCLEAR


def test_whatever_a_client_can_ask_for_has_an_answer_that_begins_with_something() -> None:
    assert set(ASKED.values()) == set(get_args(c.ClientCommand))


def test_a_member_tells_the_answer_from_the_report() -> None:
    assert origin_of("container.destroyed", {"container": "a"}) == "client"
    assert origin_of("container.destroyed", {"container": "a", "launch_id": "l"}) == "worker"
    assert origin_of("container.signal_rejected", {"kill_id": ""}) == "client"
    assert origin_of("container.signal_rejected", {"kill_id": "k"}) == "worker"


@pytest.mark.parametrize(
    ("setting", "inside", "outside"),
    [
        ("restore-spec-validation=enforce", "restore.begun", "container.start_accepted"),
        ("restore-spec-validation=enforce", "container.start_translated", "sandbox.created"),
        ("permit=none", "container.start_rejected", "restore.begun"),
        ("ignore-namespace-paths=true", "container.restore_accepted", "process.exec_accepted"),
        ("engine=bwrap", "process.exec_accepted", "container.signal_requested"),
    ],
)
def test_how_far_a_setting_reaches(setting: str, inside: str, outside: str) -> None:
    reach = Reach(parse_settings([setting]))
    assert inside in reach.tags
    assert outside not in reach.tags
    assert reach.leaves(outside, {})
    assert not reach.leaves(inside, {})


def test_nothing_set_reaches_nothing() -> None:
    assert Reach(parse_settings([])).tags == frozenset()


@pytest.mark.parametrize(
    ("settings", "request_then", "left"),
    [
        (["permit=none"], {}, True),
        (["permit=none"], {"permits": ["devices"]}, False),
        (["permit=namespace-paths"], {"permits": ["namespace-paths"]}, True),
        (["permit=namespace-paths"], {}, False),
        (["ignore-namespace-paths=false"], {}, True),
        (["ignore-namespace-paths=true"], {}, False),
        (["ignore-namespace-paths=true", "permit=none"], {"ignore_namespace_paths": True}, True),
        (["engine=crun", "permit=none"], {}, False),
    ],
)
def test_what_was_decided_under_these_values_already_is_left(
    settings: list[str], request_then: dict[str, object], left: bool
) -> None:
    reach = Reach(parse_settings(settings))
    assert reach.leaves("container.start_rejected", {"request": request_then}) is left
    begun = {"intent": {"request": request_then}}
    assert reach.leaves("container.start_accepted", begun) is left
