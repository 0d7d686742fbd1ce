"""One word for how an event came out."""

from typing import Any

import pytest

from manager.schema.events import EVENT_TYPES
from manager.schema.node_events import NODE_EVENT_TYPES
from replay.outcome import FAIL, OUTCOMES, fits, outcome_of, tags_with

EXITED = {"exit": {"type": "exited", "code": 0}}


@pytest.mark.parametrize(
    ("tag", "data", "outcome"),
    [
        ("container.start_rejected", {}, "refused"),
        ("restore.rejected", {}, "refused"),
        ("container.start_failed", {}, "failed"),
        ("sandbox.restore_failed", {}, "failed"),
        ("container.lost", {}, "failed"),
        ("container.hold_lost", {}, "failed"),
        ("container.started", {}, "ok"),
        ("container.start_accepted", {}, ""),
        ("sandbox.start_requested", {}, ""),
        ("restore.begun", {}, ""),
        ("container.exited", EXITED, "ok"),
        ("process.exited", {"exit": {"type": "exited", "code": 1}}, "failed"),
        ("container.exited", {"exit": {"type": "signaled", "signal": 9}}, "failed"),
        ("restore.validated", {"verdict": "differs"}, "mismatch"),
        ("restore.validated", {"verdict": "same"}, "ok"),
        ("container.destroyed", {"leftovers": ["/x"]}, "failed"),
        ("container.destroyed", {}, "ok"),
    ],
)
def test_outcomes(tag: str, data: dict[str, Any], outcome: str) -> None:
    assert outcome_of(tag, data) == outcome
    assert fits(outcome_of(tag, data), FAIL) is (outcome in {"refused", "failed", "mismatch"})
    for wanted in (*OUTCOMES, FAIL):
        if fits(outcome_of(tag, data), wanted):
            assert tag in tags_with(wanted)


def test_no_type_is_forgotten() -> None:
    tags = {*EVENT_TYPES, *NODE_EVENT_TYPES}
    assert (
        set().union(*map(tags_with, OUTCOMES)) | {tag for tag in tags if outcome_of(tag, {}) == ""}
        == tags
    )
    assert {tag for tag in tags if outcome_of(tag, EXITED) == ""} == {
        "container.destroy_requested",
        "container.restore_accepted",
        "container.signal_requested",
        "container.start_accepted",
        "container.start_translated",
        "process.exec_accepted",
        "restore.begun",
        "sandbox.checkpoint_requested",
        "sandbox.delete_requested",
        "sandbox.pause_requested",
        "sandbox.start_requested",
    }
