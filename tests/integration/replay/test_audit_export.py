"""Every format is read by its own parser, loses no event, and has no secret in it."""

import base64
import csv
import json
import os
import stat
import subprocess
import sys
import zipfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import pytest
from cloudevents.core.formats.json import JSONFormat
from google.protobuf.json_format import Parse
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from manager.schema.layout import LOG_FILE, SEAL_KEY_FILE
from manager.terminal.table import printable
from tests.integration.replay.conftest import HOSTILE, SECRET, Run
from tests.patience import PATIENCE_S


@pytest.fixture(scope="module")
def events(audit: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in exported(audit, "jsonl").splitlines()]


def exported(audit: Run, output: str, *args: str) -> str:
    done = audit("export", "-o", output, *args)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_jsonl_is_the_log(audit: Run, events: list[dict[str, Any]]) -> None:
    assert [each["position"] for each in events] == list(range(1, len(events) + 1))
    assert {each["schema"] for each in events} == {"sandtrail.event/v1"}
    refused = [each for each in events if each["container"] == HOSTILE]
    assert [each["outcome"] for each in refused] == ["refused"]
    only = exported(audit, "jsonl", "--outcome", "fail", "--since", "#3")
    wanted = [each for each in events[2:] if each["outcome"] in {"refused", "failed"}]
    assert [json.loads(line) for line in only.splitlines()] == wanted


def test_csv(audit: Run, events: list[dict[str, Any]]) -> None:
    rows = list(csv.DictReader(exported(audit, "csv").splitlines(keepends=True)))
    assert [int(row["position"]) for row in rows] == [each["position"] for each in events]
    assert [json.loads(row["data"]) for row in rows] == [each["data"] for each in events]
    assert not [cell for row in rows for cell in row.values() if cell.startswith(tuple("=+-@"))]
    assert printable(HOSTILE) in {row["container"] for row in rows}


def test_cloud_events(audit: Run, events: list[dict[str, Any]]) -> None:
    lines = exported(audit, "cloudevents").splitlines()
    read = [JSONFormat().read(None, line) for line in lines]  # raises for what the spec forbids
    assert [each.get_id() for each in read] == [each["event_id"] for each in events]
    assert [each.get_data() for each in read] == [each["data"] for each in events]
    sequences = [each.get_extension("sequence") for each in read]
    assert sequences == sorted(sequences)
    assert len({each.get_source() for each in read}) == 2
    causes = {each["position"]: each["event_id"] for each in events}
    for event, line in zip(events, lines, strict=True):
        assert json.loads(line).get("causationid") == causes.get(event["causation"])


def test_otlp(audit: Run, events: list[dict[str, Any]]) -> None:
    records = []
    for line in exported(audit, "otlp").splitlines():
        request = json.loads(line)
        for record in request["resourceLogs"][0]["scopeLogs"][0]["logRecords"]:
            # OTLP writes ids in hexadecimal, unlike protobuf's own JSON.
            record["traceId"] = base64.b64encode(bytes.fromhex(record["traceId"])).decode()
        parsed = Parse(json.dumps(request), ExportLogsServiceRequest())
        records += parsed.resource_logs[0].scope_logs[0].log_records
    assert [each.event_name for each in records] == [f"sandtrail.{each['type']}" for each in events]
    assert [each.time_unix_nano for each in records] == [each["recorded_at_ns"] for each in events]
    assert {len(each.trace_id) for each in records} == {16}
    assert {each.severity_text for each in records} == {"INFO", "WARN", "ERROR"}
    assert all(each.body.kvlist_value.values for each, event in zip(records, events, strict=True)
               if event["data"])  # fmt: skip


def test_perfetto(audit: Run, events: list[dict[str, Any]]) -> None:
    trace = json.loads(exported(audit, "perfetto"))["traceEvents"]
    slices = [each for each in trace if each["ph"] == "X"]
    shown = [each["args"]["position"] for each in slices if each["cat"] == "event"]
    assert shown == [each["position"] for each in events]
    named = {(each["pid"], each["tid"]): each["args"]["name"]
             for each in trace if each["ph"] == "M" and each["name"] == "thread_name"}  # fmt: skip
    assert {"web", "web.1", "web.2", HOSTILE, "node"} <= set(named.values())
    tracks: dict[str, list[tuple[str, float, float]]] = {}
    for each in slices:
        if each["cat"] == "container":
            found = each["name"], each["ts"], each["dur"]
            tracks.setdefault(named[each["pid"], each["tid"]], []).append(found)
    for found in tracks.values():
        assert all(dur >= 0 for _, _, dur in found)
        for (_, begin, dur), (_, following, _) in pairwise(found):
            assert following >= begin + dur - 1  # a microsecond: they are floats of 1.8e15
    assert [status for status, _, _ in tracks["web.1"]] == [
        "creating", "starting", "running", "paused", "running", "stopped",
    ]  # fmt: skip
    assert max(each["args"]["count"] for each in trace if each["ph"] == "C") == 3
    begun = {each["id"] for each in trace if each["ph"] == "s"}
    assert begun
    assert {each["id"] for each in trace if each["ph"] == "f"} <= begun


def test_a_bundle_proves_itself(audit: Run, root: Path, tmp_path: Path) -> None:
    made, key = tmp_path / "e.trail", str(root / f"{SEAL_KEY_FILE}.pub")
    done = audit("export", "-o", "bundle", "--out", str(made), "-s", "web")
    assert done.returncode == 0, done.stderr
    alone = [sys.executable, "-I", "-S", str(made)]
    for command in (
        [*alone, "--key", key],
        [sys.executable, "-m", "replay.verify_trail", str(made), "--key", key],
    ):
        told = subprocess.run(command, capture_output=True, text=True, check=False)
        assert told.returncode == 0, told
        assert told.stdout.startswith("PROVEN: #3 to #")
    assert subprocess.run(alone, capture_output=True, check=False).returncode == 4
    with zipfile.ZipFile(made) as bundle:
        names, lines = bundle.namelist(), bundle.read("events.jsonl").decode().splitlines()
        proof = json.loads(bundle.read("proof.json"))
    assert {"README.txt", "proof.json", "checkpoint.note", "verify_trail.py"} <= set(names)
    assert [json.loads(line)["position"] for line in lines] == [
        each["position"] for each in proof["events"]
    ]
    again = tmp_path / "again.trail"
    assert audit("export", "-o", "bundle", "--out", str(again), "-s", "web").returncode == 0
    assert again.read_bytes() == made.read_bytes()
    assert audit("export", "-o", "bundle", "--out", str(made)).returncode == 5


@pytest.mark.parametrize(
    "output", ["jsonl", "csv", "parquet", "cloudevents", "otlp", "perfetto", "bundle"]
)
def test_no_secret_is_exported(audit: Run, root: Path, tmp_path: Path, output: str) -> None:
    made = tmp_path / "made"
    assert audit("export", "-o", output, "--out", str(made)).returncode == 0
    whole = made.read_bytes()
    if output == "bundle":
        with zipfile.ZipFile(made) as bundle:
            whole = b"".join(bundle.read(name) for name in bundle.namelist())
        documents = json.loads(bundle_member(made, "proof.json"))["documents"].values()
        bodies = b"".join(base64.b64decode(each["base64"]) for each in documents)
        assert b"TOKEN=hmac-sha256:" in bodies  # it was there, and it is masked
        whole += bodies
    if output == "parquet":  # which is compressed
        rows = duckdb.execute(f"FROM read_parquet('{made}')").fetchall()
        whole = repr(rows).encode()
        assert b"alert(1)" in whole
    for part in (
        SECRET.encode(),
        base64.b64encode(SECRET.encode()),
        SECRET.encode().hex().encode(),
    ):
        assert part not in whole
        assert part not in (root / LOG_FILE).read_bytes()


def bundle_member(path: Path, name: str) -> bytes:
    with zipfile.ZipFile(path) as bundle:
        return bundle.read(name)


@pytest.mark.parametrize(
    ("args", "code", "text"),
    [
        (("-o", "bundle"), 2, "name it with --out"),
        (("-o", "parquet"), 2, "name it with --out"),
        (("-o", "parquet", "--out", "/nonexistent/x"), 5, "No such file"),
        (("-o", "xml"), 2, "is not one of"),
        (("--since", "#9", "--until", "#2"), 0, "0 events exported"),
        (("-o", "bundle", "--out", "/nonexistent/x"), 5, "No such file"),
        (("-o", "bundle", "-s", "nobody", "--out", "/nonexistent/x"), 1, "nothing to be shown"),
        (("--log", "/dev/null"), 5, "is no file"),
        (("--out", "/nonexistent/x"), 5, "No such file"),
        (("--out", ""), 2, "a file has a name"),
        (("-o", "parquet", "--out", "."), 2, "is a directory"),
        (("-o", "bundle", "--out", "/"), 2, "is a directory"),
    ],
)
def test_what_cannot_be_exported(audit: Run, args: tuple[str, ...], code: int, text: str) -> None:
    done = audit("export", *args)
    assert (done.returncode, text in done.stderr) == (code, True), done


def test_half_an_export_leaves_no_file(audit: Run, tmp_path: Path) -> None:
    assert audit("export", "--since", "#99", "--out", str(tmp_path / "x")).returncode == 5
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def null(tmp_path: Path) -> Path:
    """What a rename may destroy: never the one of the machine."""
    if os.geteuid() != 0:
        pytest.skip("only root makes devices")
    made = tmp_path / "null"
    os.mknod(made, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    return made


@pytest.mark.parametrize("command", ["export", "report"])
def test_a_device_is_written_to(audit: Run, null: Path, command: str) -> None:
    assert audit(command, "--out", str(null)).returncode == 0
    assert null.is_char_device()


def test_what_needs_a_file_refuses_a_device(audit: Run, null: Path) -> None:
    for output, text in (("parquet", "it is no regular file"), ("bundle", "a new file")):
        done = audit("export", "-o", output, "--out", str(null))
        assert (done.returncode, text in done.stderr) == (5, True), done.stderr
        assert null.is_char_device()


def test_whoever_reads_a_pipe_gets_all(
    audit: Run, events: list[dict[str, Any]], tmp_path: Path
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with subprocess.Popen(["cat", fifo], stdout=subprocess.PIPE, text=True) as reader:
        try:
            done = audit("export", "--out", str(fifo))
            assert (done.returncode, fifo.is_fifo()) == (0, True), done.stderr
            told, _ = reader.communicate(timeout=PATIENCE_S)
        finally:
            reader.kill()
    assert len(told.splitlines()) == len(events)


@pytest.mark.parametrize("output", ["jsonl", "parquet"])
def test_what_a_link_leads_to_is_replaced(audit: Run, tmp_path: Path, output: str) -> None:
    link, real = tmp_path / "link", tmp_path / "there" / "real"
    real.parent.mkdir()
    link.symlink_to("there/real")
    for _ in range(2):  # it leads to nothing yet, and then to a file
        assert audit("export", "-o", output, "--out", str(link)).returncode == 0
        assert (link.is_symlink(), real.is_file()) == (True, True)
        assert sorted(each.name for each in tmp_path.rglob("*")) == ["link", "real", "there"]


def test_what_leads_to_stdout_is_stdout(audit: Run, tmp_path: Path) -> None:
    link = tmp_path / "stdout"
    link.symlink_to("/proc/self/fd/1")
    assert audit("export", "--out", str(link)).stdout == audit("export").stdout
    assert link.is_symlink()


def test_a_bundle_without_room_leaves_nothing(root: Path, tmp_path: Path) -> None:
    """A disk of its own that is full; once there is room the same command makes it."""
    if os.geteuid() != 0:
        pytest.skip("only root mounts")
    script = (
        'mount -t tmpfs -o size=8k tmpfs "$0" && cd "$0" && "$@"; echo "$?"; '
        "ls -A | sed s/^/left:/; "
        'mount -o remount,size=8m "$0" && "$@" && ls -A'
    )
    export = [sys.executable, "-m", "manager.cli", "audit", "export", "-o", "bundle", "--out", "b"]
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, tmp_path, *export],
        env={**os.environ, "SANDTRAIL_ROOT": str(root)},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert done.stdout.split() == ["5", "b"], done
    assert "No space left on device" in done.stderr


def test_stats_of_it(audit: Run, events: list[dict[str, Any]]) -> None:
    told = json.loads(audit("stats", "--json").stdout)
    assert (told["schema"], told["events"]) == ("sandtrail.audit-stats/v1", len(events))
    starts = next(each for each in told["latencies"] if each["what"] == "start")
    assert (starts["count"], starts["failed"], starts["pending"]) == (3, 0, 0)
    shown = audit("stats").stdout
    assert "start  n=3  failed=0 (0.0%)  p50 " in shown
    assert "\x1b" not in shown
    assert "\u202e" not in shown
