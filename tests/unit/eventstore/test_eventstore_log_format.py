"""The worked example of docs/log-format.md, checked by a second implementation of that page."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from eventstore import Actor, RecordedEvent, canonical_bytes, leaf_hash
from eventstore.sqlite.schema import APPLICATION_ID, SCHEMA_VERSION

PAGE = (Path(__file__).parents[3] / "docs" / "log-format.md").read_text(encoding="utf-8")

EXAMPLES = [
    (json.loads(columns), bytes.fromhex(canonical), bytes.fromhex(leaf))
    for columns, canonical, leaf in zip(
        re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL),
        re.findall(r"```hex\n(.*?)```", PAGE, re.DOTALL),
        re.findall(r"```leaf\n(.*?)```", PAGE, re.DOTALL),
        strict=True,
    )
]

FIELDS = (
    "position stream version type event_id recorded_at_ns correlation_id causation actor data"
).split()


def by_the_page(columns: dict[str, Any]) -> bytes:
    """What a stranger would write who has read the page and nothing else."""
    encoded = b"sandtrail-event-v1\n"
    for value in [*(columns[name] for name in FIELDS), *columns["documents"]]:
        if value is None:
            encoded += b"\x00"
        else:
            content = str(value).encode()
            encoded += b"\x01" + len(content).to_bytes(4, "big") + content
    return encoded


def as_record(columns: dict[str, Any]) -> RecordedEvent:
    actor = columns["actor"]
    members = columns | {
        "actor": None if actor is None else msgspec.json.decode(actor, type=Actor),
        "data": columns["data"].encode(),
        "documents": tuple(columns["documents"]),
        "leaf_hash": b"",
    }
    return RecordedEvent(**members)


def test_there_are_examples() -> None:
    assert len(EXAMPLES) == 2
    assert {columns["actor"] is None for columns, _, _ in EXAMPLES} == {True, False}


@pytest.mark.parametrize(("columns", "canonical", "leaf"), EXAMPLES)
def test_example(columns: dict[str, Any], canonical: bytes, leaf: bytes) -> None:
    assert by_the_page(columns) == canonical
    assert hashlib.sha256(b"\x00" + canonical).digest() == leaf

    assert canonical_bytes(as_record(columns)) == canonical
    assert leaf_hash(as_record(columns)) == leaf


def test_the_document_of_the_example() -> None:
    digest = hashlib.sha256(b"hello\n").hexdigest()

    assert EXAMPLES[0][0]["documents"] == [f"sha256:{digest}"]


def test_the_marks_of_the_file() -> None:
    assert f"`0x{APPLICATION_ID:08x}`" in PAGE
    assert f"schema version, now {SCHEMA_VERSION}." in PAGE
