"""A demanding auditor and somebody on call ask a real service about a real incident, step by step.

The steps and what a great answer is are those of the acceptance script by which the tools were
designed; docs/auditing.md shows the answers.
"""

import contextlib
import csv
import itertools
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from anyio.streams.buffered import BufferedByteReceiveStream

from eventstore import ANY, NewEvent, SealPolicy, load_signer, open_log
from manager import CallRefused
from manager.schema.layout import LOG_FILE, SEAL_KEY_FILE
from tests.integration.damaged_logs import unlocked
from tests.integration.service.conftest import Donor, Service, sh
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.runtime

REPOSITORY = Path(__file__).resolve().parents[3]
PROGRAM = (sys.executable, "-m", "manager.cli")
NAME = "io.kubernetes.cri.container-name"
WARNING, ENFORCE = 1, 2
COLUMNS = 80
FOLLOWED = 30
Done = subprocess.CompletedProcess[str]


class Auditor:
    """Runs the command on the state directory of one service, as somebody would."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.home = root.parent / "home"
        self.environment = {
            **os.environ,
            "SANDTRAIL_ROOT": str(root),
            "XDG_STATE_HOME": str(self.home),
            "TZ": "UTC",
            "COLUMNS": str(COLUMNS),
        }

    def __call__(self, *args: str | Path, code: int = 0, **how: Any) -> Done:
        done = subprocess.run(
            [*PROGRAM, *map(str, args)],
            check=False, capture_output=True, text=True, timeout=120,
            **{"env": self.environment, **how},
        )  # fmt: skip
        assert done.returncode == code, done
        assert "Traceback" not in f"{done.stdout}{done.stderr}"
        return done

    def json(self, *args: str | Path, code: int = 0) -> Any:
        return json.loads(self(*args, "--json", code=code).stdout)

    @property
    def key(self) -> Path:
        return Path(f"{self.root / SEAL_KEY_FILE}.pub")

    def copy(self, name: str) -> Path:
        """All of the log in one file, as `audit snapshot` makes it."""
        made = self.root.parent / name
        self("audit", "snapshot", made)
        return made


def spec(name: str, script: str) -> dict[str, Any]:
    return {**sh(script), "annotations": {NAME: name}}


async def incident(service: Service, donor: Donor, image: Path) -> None:
    """Web is saved, and comes back with another argument: one policy lets it, another does not."""
    old = await service.client.create_sandbox("old", spec("root", "sleep 600"), donor.donation())
    await old.start_root()
    await old.create_subcontainer("web")
    await old.start_subcontainer("web", spec("web", "exec sleep 600"), donor.donation())
    with image.open("wb") as file:
        await old.checkpoint(file)
    await old.wait()
    await old.delete(force=True)
    await service.client.mark("deploy", message="web sleeps longer")
    for name, policy in (("lenient", WARNING), ("prod", ENFORCE)):
        conf = {"RestoreSpecValidation": policy}
        root = spec("root", "sleep 600")
        made = await service.client.create_sandbox(name, root, donor.donation(), conf=conf)
        with image.open("rb") as file:
            await made.restore(file)
        await made.create_subcontainer("web")
        with contextlib.suppress(CallRefused) if policy == ENFORCE else contextlib.nullcontext():
            web = spec("web", "exec sleep 900")
            await made.restore_subcontainer("web", web, donor.donation())
            await made.wait_restore()


@pytest.mark.parametrize("service", ["runsc"], indirect=True)
async def test_the_acceptance_script(
    service: Service, donor: Donor, rootfs: Path, tmp_path: Path
) -> None:
    await incident(service, donor, tmp_path / "image")
    audit = Auditor(service.root)
    step_0_the_help(audit)
    step_2_what_failed(audit)
    step_3_why(audit)
    step_4_before(audit)
    step_5_the_difference(audit)
    await step_6_following(audit, service)
    step_7_decided_again(audit, tmp_path)
    step_8_what_if(audit)
    step_9_since_when(audit)
    step_15_manners(audit)
    await step_10_beside_a_writer(audit, service)
    step_10_a_copy_without_its_wal(audit, tmp_path)
    service.stop()  # and all of it is sealed
    step_7_sealed_states(audit)
    log = audit.copy("sealed.db")
    step_10_tampering(audit, log, tmp_path)
    await step_10_the_key_is_stolen(audit, log, tmp_path)
    step_11_a_proof(audit, tmp_path)
    step_15_other_tools(audit, tmp_path)
    service.start()


def step_0_the_help(audit: Auditor) -> None:
    """Grouped, examples first, no traceback where there is no engine; doctor says."""
    done = audit("--help", env={**audit.environment, "PATH": "/nowhere"})
    assert len(re.findall(r"^    sandtrail ", done.stdout, re.MULTILINE)) == 5
    assert done.stdout.index("sandtrail serve") < done.stdout.index("Options:")
    groups = ("The service:", "Containers:", "What there is, and was:", "The log:", "Help:")
    assert all(f"\n{each}\n" in done.stdout for each in groups)
    told = audit.json("doctor")
    assert {each["name"] for each in told["engines"] if each["works"]} >= {"runsc"}


def step_2_what_failed(audit: Auditor) -> None:
    """The window echoed, names and reasons inline, a line of count and completeness."""
    done = audit("log", "--since", "-1h", "--outcome", "fail")
    line = next(each for each in done.stdout.splitlines() if "sandbox.restore_failed" in each)
    clock = r"\d\d:\d\d:\d\d\.\d{3}"
    columns = rf"\d+ +{clock} +prod +prod +sandbox.restore_failed +failed +uid:\d+ +(#\d+|-) "
    assert re.match(columns, line)
    assert '"Args" does not match across checkpoint restore for container: "web"' in line
    window, count = done.stderr.splitlines()
    assert re.match(r"window: #1 to #\d+, \d{4}-\S+\+00:00 to \d{4}-\S+\+00:00$", window)
    found = r"window #1\u2013#(\d+) · 3 of \1 events match · log complete from #1, 0 dropped, "
    assert re.match(found, count)


def step_3_why(audit: Auditor) -> None:
    """One screen, the policy in the chain, people named, re-checked; every # can be shown."""
    shown = audit("replay", "why", "prod").stdout
    assert len(shown.splitlines()) <= 24
    assert "policy enforce" in shown
    assert f"by uid:{os.getuid()}, pid {os.getpid()}" in shown
    assert "sandbox.checkpointed" in shown
    assert "Checked: these alone give the same value" in shown
    named = set(re.findall(r"#\d+", shown))
    assert len(named) > 4
    for position in named:
        assert audit("audit", "show", position).stdout.startswith(f"{position} ")


def step_4_before(audit: Auditor) -> None:
    """The layout and the schema of the present, a banner; an unknown time exits 5 with bounds."""
    lenient = audit.json("log", "--type", "sandbox.restored")["position"]
    then, now = audit("ps", "--at", f"#{lenient}"), audit("ps")
    assert then.stderr.startswith(f"as of #{lenient}  20")
    assert then.stdout.splitlines()[0].split() == now.stdout.splitlines()[0].split()
    was, is_ = audit.json("ps", "--at", f"#{lenient}"), audit.json("ps")
    assert was.pop("as_of")["position"] == lenient
    assert was["schema"] == is_["schema"]
    assert is_["items"][0] in was["items"], "lenient has not changed since"
    at = audit.json("log", "--type", "sandbox.restored")["time"]
    clock = audit("inspect", "lenient", "--at", at, "--json")
    by_number = audit("inspect", "lenient", "--at", f"#{lenient}", "--json")
    assert json.loads(clock.stdout) == json.loads(by_number.stdout)
    before = audit("ps", "--at", "2001-01-01", code=5).stderr
    assert re.search(r"the log has #1 to #\d+, the first of 20\d\d-\d\d-\d\dT", before), before
    head = audit.json("ps", "--at", "head")["as_of"]["position"]
    assert f"the log has #1 to #{head}" in audit("ps", "--at", "#99999", code=5).stderr


def step_5_the_difference(audit: Auditor) -> None:
    """Field by field, additions first, exit 1, a patch of RFC 6902; A against A exits 0."""
    done = audit("replay", "diff", "mark:deploy", "head", code=1)
    signs = [line[0] for line in done.stdout.splitlines()]
    assert signs == sorted(signs, key="+-~".index)
    assert "+ prod:" in done.stdout
    begun = audit.json("log", "--type", "container.started", "-s", "lenient", "-n", "1")
    first, second = f"#{begun['position'] - 1}", f"#{begun['position'] + 1}"
    told = audit.json("replay", "diff", first, second, "lenient", code=1)
    assert "containers" in {each["path"][1] for each in told["differences"]}
    was, is_ = (
        {"lenient": audit.json("inspect", "lenient", "--at", each)["item"]}
        for each in (first, second)
    )
    assert patched(was, told["patch"]) == is_
    same = audit("replay", "diff", "head", "head")
    assert (same.stdout, "no difference" in same.stderr) == ("", True)


def patched(document: Any, patch: list[dict[str, Any]]) -> Any:
    """What a patch makes of a document. Source: RFC 6902, for objects and lists."""
    for operation in patch:
        steps = [
            step.replace("~1", "/").replace("~0", "~") for step in operation["path"].split("/")[1:]
        ]
        place = document
        for step in steps[:-1]:
            place = place[int(step)] if isinstance(place, list) else place[step]
        last: Any = int(steps[-1]) if isinstance(place, list) else steps[-1]
        if operation["op"] == "remove":
            del place[last]
        elif operation["op"] == "add" and isinstance(place, list):
            place.insert(last, operation["value"])
        else:
            assert operation["op"] in {"add", "replace"}
            place[last] = operation["value"]
    return document


async def step_6_following(audit: Auditor, service: Service) -> None:
    """Each event once, across a restart of the writer, by cursor; exits 0 or 124."""
    cursor = audit.root.parent / "cursor"
    head = audit.json("ps", "--at", "head")["as_of"]["position"]
    follow = ("log", "-f", "--json", "--after", str(head), "--timeout", "60s", "--until-match")
    match = "type == mark.added && name == last"
    async with await anyio.open_process(
        [*PROGRAM, *follow, match], env=audit.environment, stderr=None
    ) as process:
        assert process.stdout is not None
        reader = BufferedByteReceiveStream(process.stdout)

        async def follows() -> dict[str, Any]:
            line = await reader.receive_until(b"\n", 1 << 20)
            event: dict[str, Any] = json.loads(line)
            return event

        await service.client.mark("first")
        assert (await follows())["data"]["name"] == "first"
        service.kill()
        service.start()
        seen = [await follows()]
        while seen[-1]["type"] != "recovery.completed":
            seen.append(await follows())
        for number in range(FOLLOWED):
            await service.client.mark(f"m{number}")
            seen.append(await follows())
        await service.client.mark("last")
        seen.append(await follows())
        assert await process.wait() == 0
    assert [each["position"] for each in seen] == list(range(head + 2, head + 2 + len(seen)))
    read = ("log", "--json", "--cursor-file", cursor)
    parts = [audit(*read, "--until", str(head)).stdout, audit(*read).stdout, audit(*read).stdout]
    whole = [json.loads(line)["position"] for part in parts for line in part.splitlines()]
    assert whole == list(range(1, head + 2 + len(seen)))
    audit("log", "-f", "--until-match", "type == never", "--timeout", "200ms", code=124)


def step_7_decided_again(audit: Auditor, tmp_path: Path) -> None:
    """So many decisions as recorded; with a changed rule RECORDED, NOW, its place, exit 1."""
    clean = audit("replay", "check").stdout
    assert re.match(r"#1 to #\d+: (\d+) decisions, \1 as recorded", clean)
    other = tmp_path / "code"
    for package in ("eventstore", "manager", "replay"):
        shutil.copytree(REPOSITORY / package, other / package)
    for path in (other / "manager" / "domain").glob("*.py"):
        path.write_text(path.read_text().replace(" does not match across", " differs across"))
    shown = audit("replay", "check", "--code", other, code=1).stdout
    assert re.search(r"RECORDED  .*does not match across", shown)
    now = r"NOW .*differs across.*\[manager/domain/decide_restore\.py:\d+ \(_validation_error\)\]"
    assert re.search(now, shown)


def step_7_sealed_states(audit: Auditor) -> None:
    """The digests of states in checkpoints are compared, and how many is said."""
    shown = audit("replay", "check").stdout
    assert re.search(r"; (\d+) of \1 sealed states are those of the fold", shown), shown


def step_8_what_if(audit: Auditor) -> None:
    """Deterministic to the byte; what cannot be known is a verdict of its own."""
    asked = ("replay", "whatif", "--set", "restore-spec-validation=enforce", "--since", "-30d")
    once = audit(*asked, "--fail-on", "widened", "--json")
    told = json.loads(once.stdout)
    assert audit(*asked, "--fail-on", "widened", "--json").stdout == once.stdout
    assert (told["verdicts"]["narrowed"], told["verdicts"]["widened"]) == (1, 0)
    assert [each["sandbox"] for each in told["findings"]] == ["lenient"]
    assert "unreplayable" in told["verdicts"]
    audit(*asked, code=1)
    less = ("replay", "whatif", "--set", "restore-spec-validation=warning")
    assert audit.json(*less, "--fail-on", "widened", code=1)["verdicts"]["widened"] == 1


def step_9_since_when(audit: Auditor) -> None:
    """The first bad event, which `why` explains; said if the answer changes more than once."""
    found = audit.json("replay", "bisect", "--bad", "count(phase == restoreFailed) > 0")
    assert found["event"]["type"] == "sandbox.restore_failed"
    why = audit.json("replay", "why", "prod", "--at", f"#{found['first_bad']}")
    assert why["since"] == found["first_bad"]
    flips = audit("replay", "bisect", "--bad", "any(status == stopped)").stdout
    assert re.search(r"the answer changed \d+ times", flips)
    halved = audit.json("replay", "bisect", "--run", "grep -q restoreFailed && exit 1 || exit 0")
    head = audit.json("ps", "--at", "head")["as_of"]["position"]
    assert halved["first_bad"] == found["first_bad"]
    assert halved["looked_at"] <= head.bit_length() + 2


async def step_10_beside_a_writer(audit: Auditor, service: Service) -> None:
    """Verification while the service writes at full rate is never a false alarm."""
    heads = []
    verify = ("audit", "verify", "--key", audit.key)

    async def write() -> None:
        for number in itertools.count():
            await service.client.mark(f"w{number}")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(write)
        for _ in range(4):
            told = (await anyio.to_thread.run_sync(lambda: audit(*verify))).stdout
            assert " FAIL " not in told
            heads.append(int(re.findall(r"sequence   PASS   #1 to #(\d+)", told)[0]))
        tasks.cancel_scope.cancel()
    assert heads == sorted(set(heads)), "it wrote meanwhile"


def step_10_a_copy_without_its_wal(audit: Auditor, tmp_path: Path) -> None:
    """What lay beside the file is missed."""
    lone = tmp_path / "lone.db"
    shutil.copy(audit.root / LOG_FILE, lone)
    assert "-wal" in audit("audit", "verify", "--log", lone, "--key", audit.key, code=4).stdout


def step_10_tampering(audit: Auditor, log: Path, tmp_path: Path) -> None:
    """Each is found, and where; what was cut off or put back is by whoever remembers the head."""
    kept = tmp_path / "kept.note"
    kept.write_text(audit("audit", "checkpoint", "--log", log).stdout)
    verify = ("audit", "verify", "--key", audit.key, "--no-memory")

    def after(change: Callable[[sqlite3.Connection], None], *args: str | Path, code: int) -> str:
        bad = tmp_path / "bad.db"
        shutil.copy(log, bad)
        with unlocked(bad) as raw:
            change(raw)
        return audit(*verify, "--log", bad, *args, code=code).stdout

    def flip(raw: sqlite3.Connection) -> None:
        (data,) = raw.execute("SELECT data FROM event_record WHERE position = 6").fetchone()
        data = data.replace("e", "f", 1)
        raw.execute("UPDATE event_record SET data = ? WHERE position = 6", (data,))

    def swap(raw: sqlite3.Connection) -> None:
        for one, other in ((8, -1), (9, 8), (-1, 9)):
            raw.execute("UPDATE event_record SET position = ? WHERE position = ?", (other, one))

    def cut(raw: sqlite3.Connection) -> None:
        (head,) = raw.execute("SELECT max(position) FROM event_record").fetchone()
        raw.execute("DELETE FROM event_record WHERE position > ?", (head - 10,))
        raw.execute("DELETE FROM checkpoints WHERE size > ?", (head - 10,))

    assert "#6" in line_of("content", after(flip, code=3))
    swapped = after(swap, code=3)
    assert re.search(r"FAIL .*#[89]\b", swapped), swapped
    shorter = line_of("history", after(cut, "--checkpoint", kept, code=3))
    assert "FAIL" in shorter
    # Yesterday's file, put back in the place of today's.
    place = tmp_path / "place.db"
    shutil.copy(log, place)
    with unlocked(place) as raw:
        cut(raw)
    yesterday = place.read_bytes()
    shutil.copy(log, place)
    remembers = ("audit", "verify", "--key", audit.key, "--log", place)
    audit(*remembers)
    place.write_bytes(yesterday)
    assert "FAIL" in line_of("history", audit(*remembers, code=3).stdout)


def line_of(layer: str, shown: str) -> str:
    return next(line for line in shown.splitlines() if line.startswith(f"{layer} "))


async def step_10_the_key_is_stolen(audit: Auditor, log: Path, tmp_path: Path) -> None:
    """What the key's owner wrote anew is found by a note kept elsewhere; without: said to hide."""
    forged = tmp_path / "forged.db"
    seal = SealPolicy(signer=load_signer(audit.root / SEAL_KEY_FILE))
    async with open_log(log, read_only=True) as true, open_log(forged, seal=seal) as false:
        async for each in true.read(until=20):
            data = bytes(each.data).replace(b'"code":0', b'"code":9')
            event = NewEvent(type=each.type, data=data, event_id=each.event_id)
            await false.append(each.stream, [event], expected=ANY)
    verify = ("audit", "verify", "--key", audit.key, "--no-memory", "--log", forged)
    told = audit(*verify).stdout
    assert "whoever has the signing key could have rewritten" in line_of("witness", told)
    kept = ("--checkpoint", tmp_path / "kept.note")
    assert "FAIL" in line_of("history", audit(*verify, *kept, code=3).stdout)


def step_11_a_proof(audit: Auditor, tmp_path: Path) -> None:
    """Checked without sandtrail, the arithmetic shown; wrong key, no key, bad proof are three."""
    away = tmp_path / "away"
    away.mkdir()
    shutil.copy(REPOSITORY / "replay" / "verify_trail.py", away)
    shutil.copy(audit.key, away / "ops.pub")
    failed = audit.json("log", "--type", "sandbox.restore_failed")["position"]
    proof = audit("audit", "prove", f"#{failed}").stdout
    (away / "p.json").write_text(proof)
    (away / "bad.json").write_text(proof.replace("exec sleep 900", "exec sleep 901"))
    load_signer(away / "other.key")

    def check(*args: str) -> tuple[int, str, str]:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "verify_trail.py", *args],
            cwd=away, capture_output=True, text=True, check=False, env={},
        )  # fmt: skip
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout, done.stderr

    code, shown, steps = check("p.json", "--key", "ops.pub", "-v")
    assert (code, f"PROVEN: #{failed}" in shown) == (0, True)
    assert len(re.findall(r"\b[0-9a-f]{64}\b|\b[0-9a-f]{8,}…", shown + steps)) > 2, steps
    reasons = {}
    for name, args in {
        "other-key": ("p.json", "--key", "other.key.pub"),
        "no-key": ("p.json",),
        "bad-proof": ("bad.json", "--key", "ops.pub"),
    }.items():
        code, shown, _ = check(*args, "--json")
        reasons[name] = (code, json.loads(shown)["reason"])
    assert reasons == {
        "other-key": (4, "other-key"), "no-key": (4, "no-key"), "bad-proof": (3, "bad-proof"),
    }  # fmt: skip


def step_15_manners(audit: Auditor) -> None:
    """Pipes, colours, 80 columns, Tab on what is gone, Ctrl-C."""
    shown = audit("log", "--color", "auto", env={**audit.environment, "NO_COLOR": "1"}).stdout
    assert "\x1b" not in shown
    head = audit("log", "-n", "3", "--json").stdout
    assert len([json.loads(line) for line in head.splitlines()]) == 3
    piped = f"{' '.join(PROGRAM)} log --json | head -n 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        piped, shell=True, executable="/bin/bash", env=audit.environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode in {0, 141}
    assert "Traceback" not in done.stderr
    completed = subprocess.run(
        [sys.executable, "-c", "from manager.cli import main; main()"],
        env={
            **audit.environment,
            "_SANDTRAIL_COMPLETE": "bash_complete",
            "COMP_WORDS": "sandtrail inspect --at #9 old/",
            "COMP_CWORD": "4",
        },
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert [line.partition(",")[2] for line in completed.stdout.split()] == ["old/old", "old/web"]
    with subprocess.Popen(
        [*PROGRAM, "log", "-f"], env=audit.environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as follower:  # fmt: skip
        assert follower.stdout is not None
        assert "manager.started" in follower.stdout.readline()
        follower.send_signal(signal.SIGINT)
        _, complaint = follower.communicate(timeout=PATIENCE_S)
        assert (follower.returncode, complaint) == (130, "")


def step_15_other_tools(audit: Auditor, tmp_path: Path) -> None:
    """Every format holds every event; a report for people; jq reads what is printed."""
    count = int(audit("log", "--count").stdout)
    lines = {
        each: audit("audit", "export", "-o", each).stdout.splitlines()
        for each in ("jsonl", "csv", "cloudevents", "otlp", "perfetto")
    }
    assert len(lines["jsonl"]) == len(lines["cloudevents"]) == count
    assert len(list(csv.DictReader(lines["csv"]))) == count
    records = [
        record
        for line in lines["otlp"]
        for resource in json.loads(line)["resourceLogs"]
        for scope in resource["scopeLogs"]
        for record in scope["logRecords"]
    ]
    assert len(records) == count
    trace = json.loads("\n".join(lines["perfetto"]))["traceEvents"]
    assert len([each for each in trace if each.get("cat") == "event"]) == count
    bundle, page = tmp_path / "e.trail", tmp_path / "r.html"
    audit("audit", "export", "-o", "bundle", "--out", bundle)
    alone = [sys.executable, "-I", "-S", str(bundle), "--key", str(audit.key)]
    assert subprocess.run(alone, capture_output=True, check=False).returncode == 0
    audit("audit", "report", "--out", page)
    assert "sandbox.restore_failed" in page.read_text()
    if shutil.which("jq"):
        asked = f"{' '.join(PROGRAM)} log --json | jq -r .type | sort -u"
        told = subprocess.check_output(asked, shell=True, text=True, env=audit.environment)
        assert "sandbox.restore_failed" in told.split()
