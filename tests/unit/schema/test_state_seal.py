"""Digests of states: the same for the same state, whatever was digested before, else another."""

import pytest
from msgspec.structs import replace

from eventstore import NoteMalformed
from manager.domain.state import Container, Sandbox
from manager.schema import state_seal
from manager.schema.node_fold import FoldedSandbox
from manager.schema.state_seal import StateDigests, StateSeal, seal_state, state_shape

WEB = Container(cid="web", status="running")
JOB = Container(cid="job", status="stopped")


def sandbox(sandbox_id: str, *containers: Container, version: int = 1) -> FoldedSandbox:
    state = Sandbox(
        id=sandbox_id, phase="started", containers={each.cid: each for each in containers}
    )
    return FoldedSandbox(version=version, state=state)


ONE, TWO = sandbox("one", WEB, JOB), sandbox("two", WEB)


def fresh(*live: tuple[str, FoldedSandbox]) -> bytes:
    return StateDigests().of(live)


def test_the_order_of_sandboxes_and_containers_does_not_count() -> None:
    assert fresh(("one", ONE), ("two", TWO)) == fresh(("two", TWO), ("one", ONE))
    assert fresh(("one", ONE)) == fresh(("one", sandbox("one", JOB, WEB)))


@pytest.mark.parametrize(
    "other",
    [
        (),
        (("two", ONE),),
        (("one", ONE), ("two", TWO)),
        (("one", replace(ONE, version=2)),),
        (("one", sandbox("one", WEB)),),
        (("one", sandbox("one", WEB, replace(JOB, status="destroyed"))),),
        (("one", replace(ONE, state=replace(ONE.state, paused=True))),),
    ],
)
def test_every_other_state_has_another_digest(other: tuple[tuple[str, FoldedSandbox], ...]) -> None:
    assert fresh(*other) != fresh(("one", ONE))


def test_what_is_remembered_changes_nothing() -> None:
    digests = StateDigests()
    later = replace(ONE, version=9)
    elsewhere = sandbox("one", replace(WEB, status="paused"), JOB)
    for live in (
        [("one", ONE), ("two", TWO)],
        [("one", later), ("two", TWO)],
        [("two", TWO)],
        [("one", elsewhere)],
        [("one", ONE)],
    ):
        assert digests.of(live) == fresh(*live)


def test_what_did_not_change_is_not_encoded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[object] = []

    def encode(value: object) -> bytes:
        encoded.append(value)
        return real(value)

    real = state_seal._encode
    monkeypatch.setattr(state_seal, "_encode", encode)
    digests = StateDigests()
    digests.of([("one", ONE), ("two", TWO)])
    encoded.clear()
    paused = replace(
        ONE,
        state=replace(ONE.state, containers={"web": replace(WEB, status="paused"), "job": JOB}),
    )
    digests.of([("one", paused), ("two", TWO)])
    assert [each.cid for each in encoded if isinstance(each, Container)] == ["web"]


def test_others_get_their_turn_after_each_sandbox_that_is_digested() -> None:
    turns: list[None] = []
    digests = StateDigests(give_way=lambda: turns.append(None))
    assert digests.of([("one", ONE), ("two", TWO)]) == fresh(("one", ONE), ("two", TWO))
    assert len(turns) == 2
    digests.of([("one", ONE), ("two", replace(TWO, version=2))])
    assert len(turns) == 3


def test_a_line_is_read_as_it_was_written() -> None:
    seal = seal_state(1041, bytes(32))
    assert seal.line().startswith(f"sandtrail-state-v1 1041 {'0' * 64} {state_shape()} ")
    assert StateSeal.parse(seal.line()) == seal


@pytest.mark.parametrize("line", ["", "something else", "sandtrail-other 1"])
def test_other_lines_are_left_alone(line: str) -> None:
    assert StateSeal.parse(line) is None


@pytest.mark.parametrize("wrong", [" 0 ", " 01 ", " -1 ", " 1x "])
def test_a_line_that_goes_on_otherwise_is_refused(wrong: str) -> None:
    line = seal_state(1, bytes(32)).line().replace(" 1 ", wrong, 1)
    with pytest.raises(NoteMalformed, match="is no state of a log"):
        StateSeal.parse(line)


def test_words_about_states_are_no_part_of_their_shape() -> None:
    plain = {"title": "X", "properties": {"description": {"type": "string"}}, "anyOf": [{"a": 1}]}
    told = {**plain, "description": "what X is", "anyOf": [{"a": 1, "description": "no"}]}
    assert state_seal._without_words(told) == plain
