"""Exports are taken in by the programs that they are made for, and questions to those answered."""

import base64
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import duckdb
import grpc
import pytest
from google.protobuf.json_format import Parse
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2_grpc as logs_grpc
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from eventstore import RecordedEvent
from replay.export.open_telemetry import REQUEST_CHARS_MAX, REQUEST_RECORDS_MAX, otlp_lines
from tests.integration.replay.conftest import HOSTILE, Run
from tests.patience import PATIENCE_S

Event = dict[str, Any]


@pytest.fixture(scope="module")
def made(audit: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with an export of each format."""
    directory = tmp_path_factory.mktemp("exports")
    for output in ("jsonl", "csv", "otlp"):
        done = audit("export", "-o", output, "--out", str(directory / output))
        assert done.returncode == 0, done.stderr
    return directory


@pytest.fixture(scope="module")
def events(made: Path) -> list[Event]:
    return [json.loads(line) for line in (made / "jsonl").read_text().splitlines()]


def outcomes(events: list[Event]) -> list[tuple[str, str, int]]:
    counted = Counter((each["container"], each["outcome"]) for each in events)
    return sorted((*key, count) for key, count in counted.items())


# --- DuckDB --------------------------------------------------------------------------------------


@pytest.fixture
def duck() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        # It must not look for extensions anywhere.
        connection.execute("SET autoinstall_known_extensions = false")
        yield connection


@pytest.mark.parametrize("reader", ["read_json_auto('{}/jsonl')", "read_csv_auto('{}/csv')"])
def test_duckdb_counts_what_there_is(
    duck: duckdb.DuckDBPyConnection, made: Path, events: list[Event], reader: str
) -> None:
    source = reader.format(made)
    asked = duck.execute(
        "SELECT coalesce(container, ''), coalesce(outcome, ''), count(*) "
        f"FROM {source} GROUP BY ALL ORDER BY ALL"
    )
    found = sorted((name, outcome, count) for name, outcome, count in asked.fetchall())
    if "csv" in reader:  # whose names are printable
        assert [each[1:] for each in found] == [each[1:] for each in outcomes(events)]
    else:
        assert found == outcomes(events)
    columns = {name: kind for name, kind, *_ in duck.execute(f"DESCRIBE FROM {source}").fetchall()}
    assert columns["position"] == columns["version"] == columns["causation"] == "BIGINT"
    assert columns["time"].startswith("TIMESTAMP")


def test_duckdb_looks_into_payloads_and_knows_their_times(
    duck: duckdb.DuckDBPyConnection, made: Path, events: list[Event]
) -> None:
    exited = [each for each in events if each["type"] == "container.exited"]
    wanted = [(each["position"], each["data"]["exit"]["signal"]) for each in exited]
    for source, field in (
        (f"read_json_auto('{made}/jsonl')", "data->'exit'->>'signal'"),
        (f"read_csv_auto('{made}/csv')", "data::JSON->'exit'->>'signal'"),
    ):
        asked = f"SELECT position, ({field})::INT FROM {source} WHERE type = 'container.exited'"
        assert duck.execute(asked).fetchall() == wanted != []
    last = duck.execute(f"SELECT epoch_us(max(time)) FROM read_csv_auto('{made}/csv')").fetchone()
    assert last == (max(each["recorded_at_ns"] for each in events) // 1000,)


def test_parquet_has_each_event_with_its_types(
    duck: duckdb.DuckDBPyConnection, audit: Run, made: Path, events: list[Event]
) -> None:
    file = made / "events.parquet"
    file.write_text("what was there before")
    assert audit("export", "-o", "parquet", "--out", str(file)).returncode == 0
    rows = duck.execute(
        "SELECT position, epoch_ns(time), recorded_at_ns, type, container, outcome, actor.uid, "
        f"causation, data FROM read_parquet('{file}')"
    ).fetchall()
    assert [row[:1] + row[2:6] + row[7:8] for row in rows] == [
        tuple(each[name] for name in (
            "position", "recorded_at_ns", "type", "container", "outcome", "causation"
        ))
        for each in events
    ]  # fmt: skip
    assert [json.loads(row[8]) for row in rows] == [each["data"] for each in events]
    assert all(abs(row[1] - row[2]) < 1_000 for row in rows), "times, to the microsecond"
    assert {row[6] for row in rows} == {None, 0}
    assert sorted(each.name for each in made.iterdir()) == [
        "csv",
        "events.parquet",
        "jsonl",
        "otlp",
    ]


def test_parquet_without_its_extra_says_how_to_get_it(root: Path, tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['duckdb'] = None; from manager.cli import main; "
        "sys.argv = ['sandtrail', 'audit', 'export', '-o', 'parquet', '--out', sys.argv[1]]; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "x")],
        env={**os.environ, "SANDTRAIL_ROOT": str(root)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert "pip install 'sandtrail[parquet]'" in done.stderr
    assert list(tmp_path.iterdir()) == []


# --- jq ------------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("jq") is None, reason="jq is not installed")
def test_jq_finds_who_was_refused_and_why(made: Path, events: list[Event]) -> None:
    asked = 'select(.outcome == "refused") | [.container, .data.error]'
    done = subprocess.run(
        ["jq", "-c", asked, made / "jsonl"], capture_output=True, text=True, check=True
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert found == [
        [each["container"], each["data"]["error"]]
        for each in events
        if each["outcome"] == "refused"
    ]
    assert HOSTILE in {container for container, _ in found}


# --- OpenTelemetry -------------------------------------------------------------------------------


class Receiver(logs_grpc.LogsServiceServicer):
    """A receiver of logs, with the limits that such servers have unless they are told otherwise."""

    def __init__(self) -> None:
        self.records: list[LogRecord] = []

    def Export(  # noqa: N802 - the service's name for it
        self, request: logs.ExportLogsServiceRequest, context: grpc.ServicerContext
    ) -> logs.ExportLogsServiceResponse:
        for resource in request.resource_logs:
            for scope in resource.scope_logs:
                self.records += scope.log_records
        return logs.ExportLogsServiceResponse()


def as_request(line: str) -> logs.ExportLogsServiceRequest:
    """What a line says; OTLP writes ids in hexadecimal, unlike protobuf's own JSON."""
    request = json.loads(line)
    for record in request["resourceLogs"][0]["scopeLogs"][0]["logRecords"]:
        if "traceId" in record:
            record["traceId"] = base64.b64encode(bytes.fromhex(record["traceId"])).decode()
    return Parse(json.dumps(request), logs.ExportLogsServiceRequest())


def sent(lines: list[str], socket: Path) -> list[LogRecord]:
    """What a receiver of OTLP has of an export after it was sent to it."""
    receiver = Receiver()
    server = grpc.server(ThreadPoolExecutor(max_workers=1))
    logs_grpc.add_LogsServiceServicer_to_server(receiver, server)
    assert server.add_insecure_port(f"unix:{socket}")
    server.start()
    try:
        with grpc.insecure_channel(f"unix:{socket}") as channel:
            stub = logs_grpc.LogsServiceStub(channel)
            for line in lines:
                answer = stub.Export(as_request(line), timeout=PATIENCE_S)
                assert answer.partial_success.rejected_log_records == 0
    finally:
        server.stop(None).wait()
    return receiver.records


def test_a_receiver_of_otlp_has_each_event(made: Path, events: list[Event], tmp_path: Path) -> None:
    records = sent((made / "otlp").read_text().splitlines(), tmp_path / "otlp.sock")
    assert [each.time_unix_nano for each in records] == [each["recorded_at_ns"] for each in events]
    assert [each.event_name for each in records] == [f"sandtrail.{each['type']}" for each in events]
    named = [{each.key: each.value for each in record.attributes} for record in records]
    assert [each["sandtrail.position"].int_value for each in named] == [
        each["position"] for each in events
    ]


async def recorded(count: int, data: bytes) -> AsyncIterator[RecordedEvent]:
    for position in range(1, count + 1):
        yield RecordedEvent(
            position=position,
            stream="sandbox-web",
            version=position,
            type="container.start_rejected",
            event_id=f"e{position}",
            recorded_at_ns=position,
            correlation_id=None,
            causation=None,
            actor=None,
            data=data,
            documents=(),
            leaf_hash=bytes(32),
        )


@pytest.mark.parametrize(
    ("count", "payload_bytes", "lines"),
    [
        (2 * REQUEST_RECORDS_MAX + 1, 10, 3),
        (40, 50_000, 8),
        (3, 1_500_000, 3),
    ],
)
async def test_no_request_is_too_large_for_a_receiver(
    tmp_path: Path, count: int, payload_bytes: int, lines: int
) -> None:
    data = json.dumps({"error": "x" * payload_bytes}).encode()
    made = [each async for each in otlp_lines(recorded(count, data), "here")]
    assert len(made) == lines
    one = 2 * payload_bytes + 2_000  # once in the body, once in what the event is about
    assert all(len(line) <= max(REQUEST_CHARS_MAX, one) + 1_000 for line in made)
    got = sent(made, tmp_path / "otlp.sock")
    assert [each.time_unix_nano for each in got] == list(range(1, count + 1))
