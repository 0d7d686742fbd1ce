"""Events to bytes and back: strict about tags and kinds, lenient about additions."""

from typing import Any, get_args

import msgspec
import pytest

from manager.domain import events as e
from manager.domain.exit_status import Exited
from manager.domain.state import ABSENT
from manager.schema import codec
from manager.schema.codec import EventCodec, EventFormatError, Payload, tag_of
from manager.schema.events import (
    EVENT_TYPES,
    UPCASTERS,
    MalformedEvent,
    UnknownEventType,
    decode_event,
    encode_event,
)
from manager.schema.node_events import (
    NODE_EVENT_TYPES,
    ManagerStarted,
    RecoveryCompleted,
    WorkerStarted,
    decode_node_event,
    encode_node_event,
)
from manager.schema.worker import EngineReport, PidIdentity

EXITED = e.ContainerExited(
    container="c1", launch_id="L", exit=Exited(code=3), source="waitid", exited_at_ns=9
)


@pytest.mark.parametrize(
    ("event", "tag", "data"),
    [
        (e.SandboxDeleted(), "sandbox.deleted", b"{}"),
        (e.SandboxStopped(reason="it exited"), "sandbox.stopped", b'{"reason":"it exited"}'),
        (
            EXITED,
            "container.exited",
            b'{"container":"c1","launch_id":"L","exit":{"type":"exited","code":3},'
            b'"source":"waitid","exited_at_ns":9,"started_at_ns":null,"oom":false,'
            b'"checkpoint_id":""}',
        ),
    ],
)
def test_the_payload_is_the_event_without_its_tag(event: e.Event, tag: str, data: bytes) -> None:
    assert encode_event(event) == (tag, data)
    assert decode_event(tag, data) == event


def test_the_members_of_tomorrow_are_ignored() -> None:
    data = b'{"of_tomorrow":[1,{"a":null}],"reason":"x"}'
    assert decode_event("sandbox.stopped", data) == e.SandboxStopped(reason="x")


def test_the_members_of_today_have_defaults_for_the_events_of_yesterday() -> None:
    data = b'{"launch_id":"L"}'
    assert decode_event("sandbox.start_requested", data) == e.SandboxStartRequested(launch_id="L")


@pytest.mark.parametrize("tag", ["", "sandbox.melted", "Sandbox.deleted", "manager.started"])
def test_an_unknown_tag_stops_the_reader(tag: str) -> None:
    with pytest.raises(UnknownEventType, match="a newer version wrote it") as caught:
        decode_event(tag, b"{}")
    assert caught.value.tag == tag
    assert isinstance(caught.value, EventFormatError)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b'{"reason":1}',
        b'{"reason":"\xff"}',
        b'{"type":"sandbox.deleted","reason":"x"}',
        b'{"reason":"x","deep":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
    ids=range(9),
)
def test_a_payload_that_does_not_fit_its_tag(data: bytes) -> None:
    with pytest.raises(MalformedEvent, match=r"malformed payload of event type 'sandbox\.stopped'"):
        decode_event("sandbox.stopped", data)


def test_every_event_has_a_tag_of_its_own() -> None:
    members = get_args(e.Event)
    assert len(EVENT_TYPES) == len(members)
    assert set(EVENT_TYPES.values()) == set(members)
    assert not EVENT_TYPES.keys() & {"manager.started", "worker.lost"}


def test_no_member_is_called_type_as_the_tag_was() -> None:
    for member in (*EVENT_TYPES.values(), *NODE_EVENT_TYPES.values()):
        assert codec.TAG_FIELD not in member.__struct_fields__
        assert member.__struct_config__.tag_field == codec.TAG_FIELD


def test_the_types_cannot_be_changed_by_accident() -> None:
    types: Any = EVENT_TYPES
    with pytest.raises(TypeError):
        types["x"] = e.SandboxDeleted


def test_nothing_is_retired_yet() -> None:
    assert UPCASTERS == {}


class Greeted(msgspec.Struct, frozen=True, kw_only=True, tag="v2.greeted"):
    name: str
    loud: bool


class Waved(msgspec.Struct, frozen=True, kw_only=True, tag="v2.waved"):
    pass


def _from_v1(payload: Payload) -> tuple[str, Payload]:
    return "v2.greeted", {"name": payload["who"], "loud": payload["volume"] > 5}


OF_TODAY: EventCodec[Greeted | Waved] = EventCodec(Greeted | Waved, {
    "v1.greeted": _from_v1,
    "v0.greeted": lambda payload: ("v1.greeted", {"who": payload["to"], "volume": 9}),
    "v0.lost": lambda payload: ("v0.nothing", payload),
})  # fmt: skip


@pytest.mark.parametrize(
    ("tag", "data", "event"),
    [
        ("v2.greeted", b'{"name":"a","loud":true}', Greeted(name="a", loud=True)),
        ("v1.greeted", b'{"who":"a","volume":3}', Greeted(name="a", loud=False)),
        ("v0.greeted", b'{"to":"a"}', Greeted(name="a", loud=True)),
    ],
)
def test_retired_tags_are_read_step_by_step(tag: str, data: bytes, event: Greeted) -> None:
    assert OF_TODAY.decode(tag, data) == event


@pytest.mark.parametrize(
    ("tag", "data", "error"),
    [
        ("v0.greeted", b'{"from":"a"}', MalformedEvent),
        ("v0.greeted", b"[]", MalformedEvent),
        ("v1.greeted", b'{"who":1,"volume":3}', MalformedEvent),
        ("v1.greeted", b'{"who":"\xff"}', MalformedEvent),
        ("v0.lost", b"{}", UnknownEventType),
    ],
)
def test_retired_tags_that_cannot_be_read(tag: str, data: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        OF_TODAY.decode(tag, data)


def test_a_codec_of_one_event() -> None:
    only: EventCodec[Waved] = EventCodec(Waved)
    assert only.encode(Waved()) == ("v2.waved", b"{}")


def test_an_event_without_a_tag_is_a_mistake() -> None:
    class Tagless(msgspec.Struct):
        pass

    with pytest.raises(TypeError, match="Tagless must have an explicit tag"):
        tag_of(Tagless)


def test_node_events() -> None:
    identity = PidIdentity(pid=2, start_ticks=3, pidfd_inode=4, boot_id="b")
    events = (
        ManagerStarted(version="0.1.0", pid=1, boot_id="b", kernel="6.1"),
        WorkerStarted(
            identity=identity,
            engines=(EngineReport(name="crun", works=True, lacks=("x",)),),
            capabilities={"exit-status": "waitid"},
        ),
        RecoveryCompleted(adopted=("a",), interrupted=("b",), lost=("c",)),
    )
    for event in events:
        tag, data = encode_node_event(event)
        assert decode_node_event(tag, data) == event
        assert b'"type"' not in data


def test_the_node_keeps_refusals_of_ids_that_name_no_stream() -> None:
    assert set(NODE_EVENT_TYPES) - set(EVENT_TYPES) == {
        "manager.started",
        "manager.stopped",
        "worker.started",
        "worker.lost",
        "recovery.completed",
        "mark.added",
        "mark.rejected",
    }
    assert set(NODE_EVENT_TYPES) & set(EVENT_TYPES) == {"sandbox.create_rejected"}
    with pytest.raises(UnknownEventType):
        decode_node_event("sandbox.deleted", b"{}")


def test_a_state_is_written_as_json() -> None:
    assert msgspec.json.decode(msgspec.json.encode(ABSENT), type=type(ABSENT)) == ABSENT
