"""The pure parts: expected versions, canonical bytes, ids, digests, the door."""

import hashlib
import inspect
import re
import subprocess
import sys
import uuid

import pytest

import eventstore
from eventstore import (
    ANY,
    NO_STREAM,
    STREAM_EXISTS,
    Actor,
    Document,
    Exactly,
    ExpectedVersion,
    NewEvent,
    RecordedEvent,
    canonical_bytes,
    leaf_hash,
    make_event_id,
    matches,
    new_event_id,
)


@pytest.mark.parametrize(
    ("expected", "meets"),
    [
        (NO_STREAM, [True, False, False]),
        (STREAM_EXISTS, [False, True, True]),
        (ANY, [True, True, True]),
        (Exactly(0), [True, False, False]),
        (Exactly(1), [False, True, False]),
        (Exactly(2), [False, False, True]),
    ],
)
def test_matches(expected: ExpectedVersion, meets: list[bool]) -> None:
    assert [matches(expected, actual) for actual in range(3)] == meets


def record(**changed: object) -> RecordedEvent:
    members = {
        "position": 1,
        "stream": "s",
        "version": 1,
        "type": "t",
        "event_id": "e",
        "recorded_at_ns": 5,
        "correlation_id": None,
        "causation": None,
        "actor": None,
        "data": b"{}",
        "documents": (),
        "leaf_hash": b"",
    }
    return RecordedEvent(**(members | changed))  # type: ignore[arg-type]  # as its caller gave it


def test_canonical_bytes_are_as_documented() -> None:
    full = record(
        position=12,
        correlation_id="é",
        causation=3,
        actor=Actor(uid=1, gid=2, pid=3),
        documents=("sha256:aa", "sha256:bb"),
    )

    assert canonical_bytes(full) == (
        b"sandtrail-event-v1\n"
        b"\x01\0\0\0\x0212"
        b"\x01\0\0\0\x01s"
        b"\x01\0\0\0\x011"
        b"\x01\0\0\0\x01t"
        b"\x01\0\0\0\x01e"
        b"\x01\0\0\0\x015"
        b"\x01\0\0\0\x02\xc3\xa9"
        b"\x01\0\0\0\x013"
        b'\x01\0\0\0\x19{"uid":1,"gid":2,"pid":3}'
        b"\x01\0\0\0\x02{}"
        b"\x01\0\0\0\x09sha256:aa"
        b"\x01\0\0\0\x09sha256:bb"
    )
    assert leaf_hash(full) == hashlib.sha256(b"\0" + canonical_bytes(full)).digest()


def test_every_member_moves_the_leaf_hash() -> None:
    changes: list[dict[str, object]] = [
        {},
        {"position": 2},
        {"stream": "st", "type": ""},
        {"stream": "", "type": "st"},
        {"version": 2},
        {"event_id": "f"},
        {"recorded_at_ns": 6},
        {"correlation_id": ""},
        {"correlation_id": "1"},
        {"causation": 1},
        {"actor": Actor(uid=0, gid=0, pid=0)},
        {"actor": Actor(uid=0, gid=0, pid=1)},
        {"data": b"{ }"},
        {"documents": ("a",)},
        {"documents": ("a", "b")},
        {"documents": ("b", "a")},
        {"documents": ("ab",)},
    ]

    hashes = {leaf_hash(record(**changed)) for changed in changes}

    assert len(hashes) == len(changes)


def test_the_leaf_hash_takes_no_part_in_itself() -> None:
    assert leaf_hash(record(leaf_hash=b"x" * 32)) == leaf_hash(record())


def test_event_ids_are_uuids_of_version_7() -> None:
    made = uuid.UUID(make_event_id(1_700_000_000_123_456_789, (1 << 62) - 1))

    assert made.version == 7
    assert made.variant == uuid.RFC_4122
    assert made.int >> 80 == 1_700_000_000_123
    assert new_event_id() != new_event_id()
    assert len(NewEvent(type="t", data=b"{}").event_id) == 36


def test_a_forked_process_does_not_make_its_parents_ids() -> None:
    program = """
import os
from eventstore import new_event_id
new_event_id()
reader, writer = os.pipe()
if not os.fork():
    os.write(writer, new_event_id().encode())
    os._exit(0)
os.wait()
print(os.read(reader, 36).decode(), new_event_id())
"""
    told = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)

    theirs, ours = told.stdout.decode().split()
    assert theirs[-17:] != ours[-17:]


def test_event_ids_sort_by_time() -> None:
    times = [0, 300, 999_999, 1_000_000, 1_000_300, 10**18, 10**18 + 300]

    ids = [make_event_id(at_ns, random_bits=7 - index) for index, at_ns in enumerate(times)]

    assert ids == sorted(ids)
    assert len(set(ids)) == len(ids)


def test_digest_of_a_document() -> None:
    document = Document(media_type="text/plain", body=b"abc")

    assert document.digest == (
        "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )
    assert document == Document(media_type="text/plain", body=b"abc")


def test_the_door_names_what_it_opens() -> None:
    assert sorted(eventstore.__all__, key=str.lower) == sorted(
        set(eventstore.__all__), key=str.lower
    )
    for name in eventstore.__all__:
        assert hasattr(eventstore, name)


def test_every_error_is_in_the_tree_and_drawn_there() -> None:
    from eventstore import errors

    drawn = errors.__doc__ or ""
    raised = [
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, Exception)
    ]

    assert raised
    for error in raised:
        assert issubclass(error, eventstore.EventStoreError)
        assert error.__name__ in drawn
        assert error.__name__ in eventstore.__all__


def test_what_raises_an_error_says_so() -> None:
    door = [getattr(eventstore, name) for name in eventstore.__all__]
    errors = [each for each in door if isinstance(each, type) and issubclass(each, Exception)]
    told = " ".join(
        inspect.getdoc(said) or ""
        for each in door
        if each not in errors
        for said in (each, *(vars(each).values() if isinstance(each, type) else ()))
    )

    assert len(errors) > 20
    assert [each.__name__ for each in errors if not re.search(rf"\b{each.__name__}\b", told)] == []


def test_everything_at_the_door_says_what_it_is() -> None:
    things = [getattr(eventstore, name) for name in eventstore.__all__]
    named = [each for each in things if inspect.isclass(each) or inspect.isfunction(each)]
    methods = [
        method
        for each in named
        if inspect.isclass(each)
        for name, method in vars(each).items()
        if inspect.isfunction(method) and not name.startswith("_")
    ]

    assert len(named) > 50
    assert [each.__qualname__ for each in (*named, *methods) if not each.__doc__] == []
