"""``sandtrail log``: what its options choose, on a log whose content never changes."""

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import anyio.abc
import pytest
from anyio.streams.buffered import BufferedByteReceiveStream
from click.testing import CliRunner, Result

from eventstore import ANY, NewEvent, open_log
from manager.cli import cli
from manager.schema.layout import LOG_FILE
from tests.patience import PATIENCE_S

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "logs" / "log_v1.db"
START = 1767225600  # 2026-01-01T00:00:00Z, when its first event was recorded
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root makes devices")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    shutil.copy(GOLDEN, tmp_path / LOG_FILE)
    return tmp_path


def log(root: Path, *args: str) -> Result:
    env = {"SANDTRAIL_ROOT": str(root), "TZ": "UTC"}
    return CliRunner().invoke(cli, ["log", *args], env=env, prog_name="sandtrail")


@pytest.mark.parametrize(
    ("args", "positions"),
    [
        ((), range(1, 44)),
        (("--since", "6", "--until", "#8"), [6, 7, 8]),
        (("--after", "5", "--until", "8"), [6, 7, 8]),
        (("-n", "2", "-r"), [43, 42]),
        (("-n", "2"), [42, 43]),
        (("-n", "0"), []),
        (("-r", "--until", "3"), [3, 2, 1]),
        (("-t", "container.exited"), [7, 12, 31, 36]),
        (("-t", "container.exited", "-t", "sandbox.stopped", "-s", "web"), [31, 36, 37]),
        (("--until", "2026-01-01T00:00:00.5"), [1, 2, 3]),
        (("--until", "2026-01-01T01:00:00.5+01:00"), [1, 2, 3]),
        (("--until", "2026-01-01"), []),
        (("--since", f"@{START + 2}", "--until", "29", "--type", "sandbox.start_rejected"), [28]),
        (("--since", f"@{START + 60}"), []),
        (("--outcome", "fail"), [12, 16, 27, 28, 31, 36, 42]),
        (("--outcome", "refused"), [27, 28, 42]),
        (("--outcome", "fail", "-t", "container.exited", "-n", "1"), [36]),
        (("--outcome", "ok", "-t", "sandbox.start_rejected"), []),
        (("-s", "web", "-c", "side"), [24, 25, 26, 29, 30, 31]),
        (("--grep", "no such file"), [16]),
        (("--actor", "uid:0", "--until", "5"), [4, 5]),
        (("--actor", "root", "--until", "5"), [4, 5]),
        (("--actor", "4711"), []),
        (("--where", "exit.code == 3 or uid == null and position < 3"), [1, 2, 12]),
        (("--where", "len(data) > 1", "--outcome", "refused"), []),
        (("--until-match", "type == container.exited && exit.code == 3"), range(1, 13)),
        (("-r", "--until-match", "outcome == refused"), [43, 42]),
    ],
)
def test_log_prints_what_is_asked_for(
    root: Path, args: tuple[str, ...], positions: range | list[int]
) -> None:
    done = log(root, "--json", *args)

    assert done.exit_code == 0, done.stderr
    printed = [json.loads(line)["position"] for line in done.stdout.splitlines()]
    assert printed == list(positions)
    if "--until-match" not in args:
        counted = log(root, "--count", *(each for each in args if each != "-r"))
        if "-n" in args:
            assert (counted.exit_code, "not with -n" in counted.stderr) == (2, True)
        else:
            assert int(counted.stdout) == len(printed)


def test_what_an_event_led_to(root: Path) -> None:
    done = log(root, "--json", "--cause", "#5")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert {"sandbox.started", "container.exited"} <= {event["type"] for event in events}
    assert {event["sandbox"] for event in events} == {"hello"}


def test_a_table_for_people(root: Path) -> None:
    done = log(root, "-s", "fails", "-n", "1")

    header, row = done.stdout.splitlines()
    assert header.split() == [
        "#", "TIME", "SANDBOX", "CONTAINER", "EVENT", "OUTCOME", "ACTOR", "CAUSE", "DETAIL",
    ]  # fmt: skip
    assert row.split(maxsplit=8) == [
        "13", "00:00:00.877", "fails", "fails", "sandbox.stopped", "ok", "uid:0", "#10",
        "its root container exited",
    ]  # fmt: skip
    assert done.stderr.splitlines() == [
        "window: #1 to #43, 2026-01-01T00:00:00.000+00:00 to 2026-01-01T00:00:03.577+00:00",
        "window #1\u2013#43 · 1 of 43 events match · "
        "log complete from #1, 0 dropped, sealed to #43",
    ]


def narrow(root: Path, columns: int, *args: str) -> list[str]:
    """What somebody sees at a terminal of that width."""
    env = {
        "SANDTRAIL_ROOT": str(root), "TZ": "UTC", "FORCE_COLOR": "1", "COLUMNS": str(columns),
    }  # fmt: skip
    done = CliRunner().invoke(cli, ["log", "--no-pager", *args], env=env)
    assert done.exit_code == 0
    return re.sub(r"\x1b\[[0-9;]*m", "", done.stdout).splitlines()


def test_a_narrow_terminal_is_told_all_of_it(root: Path) -> None:
    """Two lines an event instead of columns that are cut; a wide one gets a table."""
    lines = narrow(root, 80)
    assert all(len(line) <= 80 for line in lines)
    heads = [line.split() for line in lines if not line.startswith(" ")]
    assert [int(head[0]) for head in heads] == list(range(1, 44))
    assert heads[27] == ["28", "00:00:02.034", "hello", "sandbox.start_rejected", "refused"]
    text = " ".join(line.strip() for line in lines)
    assert "uid:0 · sandbox is not in created state, cannot start root container" in text
    assert "cause #" in text
    assert "CAUSE" in narrow(root, 160, "-n", "3")[0]
    assert all(len(line) <= 40 for line in narrow(root, 40) if line.startswith(" "))


def test_an_empty_window_says_what_there_is(root: Path) -> None:
    done = log(root, "--since", "@1900000000")
    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr == (
        "window: empty, no event is in it; the log has #1 to #43, "
        "until 2026-01-01T00:00:03.577+00:00\n"
    )


def test_only_some_fields(root: Path) -> None:
    asked = ("--fields", "position,data.exit.code", "-t", "container.exited")
    assert log(root, *asked, "-n", "2").stdout.splitlines() == [
        "position  data.exit.code",
        "31        null",
        "36        null",
    ]
    lines = log(root, *asked, "--until", "12", "-o", "jsonl").stdout.splitlines()
    assert [json.loads(line) for line in lines] == [
        {"position": 7, "data.exit.code": 0},
        {"position": 12, "data.exit.code": 3},
    ]


def test_a_list_too_long_for_a_table_has_every_event(root: Path) -> None:
    script = "import replay.cli.log as log, manager.cli\nlog.TABLE_ROWS_MAX = 7\nmanager.cli.main()"
    done = subprocess.run(
        [sys.executable, "-c", script, "log"],
        env={**os.environ, "SANDTRAIL_ROOT": str(root)},
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE_S,
    )
    numbers = [line.split()[0] for line in done.stdout.splitlines()]
    assert [int(each) for each in numbers if each.isdigit()] == list(range(1, 44))
    assert "43 of 43 events match" in done.stderr


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (("--since", "yestrday"), 2, "'yestrday' is no point of a log: want a position"),
        (("--since", "20260101"), 2, "#20260101 or as 2026-01-01: write one of these"),
        (("--until", "#99"), 5, "there is no #99; the log has #1 to #43"),
        (("--follow", "-n", "3"), 2, "--follow goes on for ever"),
        (("--follow", "-n", "0", "--timeout", "60s"), 2, "--follow goes on for ever"),
        (("--count", "--until-match", "position == 3"), 2, "not with -n or --until-match"),
        (("--cursor-file", ""), 2, "a file has a name"),
        (("--cursor-file", "."), 2, "is a directory"),
        (("-n", "-1"), 2, "-1 is not in the range"),
        (("--type", "container.exitd"), 2, "no event has the type 'container.exitd'"),
        (("--actor", "nobody-of-that-name"), 2, "is no user here"),
        (("--where", "a ="), 2, "is not understood"),
        (("--fields", "position,colour"), 2, "'colour' is no member: want schema, position,"),
        (("--type", "container.lost", "--fail-empty"), 1, "0 of 43 events match"),
        (("--since", "44"), 5, "there is no #44; the log has #1 to #43"),
        (("--grep", "("), 2, "'(' is no regular expression"),
        (("--until-match", "a ="), 2, "is not understood"),
        (("--timeout", "soon"), 2, "'soon' is no duration, such as 90s"),
        (("--until-match", "type == never.seen"), 1, "43 of 43 events match"),
        (("--until-match", "typ == container.exited"), 1, "note: 'typ' led nowhere in anything"),
        (
            ("--where", "exit.cod == 3", "--fail-empty"),
            1,
            "note: 'exit.cod' led nowhere in anything",
        ),
        (("--log", "nowhere.db"), 5, "the log nowhere.db is not there"),
        (("--log", "/"), 5, "the log / is no file"),
        (("--cause", "2", "-r"), 2, "--cause looks from the beginning"),
    ],
)
def test_what_makes_no_sense_is_refused(
    root: Path, args: tuple[str, ...], code: int, says: str
) -> None:
    done = log(root, *args)

    assert done.exit_code == code
    assert says in done.stderr
    assert isinstance(done.exception, SystemExit)


def test_a_cursor_file_reads_on(root: Path, tmp_path: Path) -> None:
    cursor = tmp_path / "cursor"
    first = log(root, "--json", "--cursor-file", str(cursor), "--until", "5")
    rest = log(root, "--json", "--cursor-file", str(cursor))
    none = log(root, "--json", "--cursor-file", str(cursor))
    lines = (first.stdout + rest.stdout).splitlines()
    assert [json.loads(line)["position"] for line in lines] == list(range(1, 44))
    assert len(first.stdout.splitlines()) == 5
    assert (none.exit_code, none.stdout) == (0, "")
    for text, says in (("3 other-id", "#3 is not the event"), ("x", "is no cursor file")):
        cursor.write_text(text)
        lost = log(root, "--cursor-file", str(cursor))
        assert lost.exit_code == 4
        assert says in lost.stderr


@as_root
@pytest.mark.parametrize("kind", [stat.S_IFIFO, stat.S_IFCHR])
def test_a_cursor_is_in_a_file(root: Path, tmp_path: Path, kind: int) -> None:
    device, link = tmp_path / "device", tmp_path / "link"
    os.mknod(device, kind | 0o600, os.makedev(1, 3))
    link.symlink_to(device.name)
    for path in (device, link):
        done = log(root, "--cursor-file", str(path))
        assert (done.exit_code, "it is no regular file" in done.stderr) == (5, True)
        assert stat.S_IFMT(device.stat().st_mode) == kind
    device.unlink()
    assert log(root, "--cursor-file", str(link), "--until", "5").exit_code == 0
    assert link.is_symlink()
    assert device.read_text().startswith("5 ")


@pytest.mark.parametrize("how", [(), ("--fields", "position"), ("--json",)])
def test_a_cursor_does_not_pass_what_could_not_be_printed(
    root: Path, tmp_path: Path, how: tuple[str, ...]
) -> None:
    cursor = tmp_path / "cursor"
    command = [sys.executable, "-m", "manager.cli", "log", "--cursor-file", str(cursor), *how]
    environment = {**os.environ, "SANDTRAIL_ROOT": str(root)}
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            command, env=environment, stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert done.returncode == 5
    assert b"No space left on device" in done.stderr
    assert not cursor.exists()


def test_a_follower_that_is_killed_reads_on(root: Path, tmp_path: Path) -> None:
    cursor = tmp_path / "cursor"
    command = [sys.executable, "-m", "manager.cli", "log", "-f", "--cursor-file", str(cursor)]
    environment = {**os.environ, "SANDTRAIL_ROOT": str(root)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
        deadline = time.monotonic() + PATIENCE_S
        while not cursor.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        process.kill()
        assert process.stdout is not None
        shown = len(process.stdout.read().splitlines())
    rest = log(root, "--json", "--cursor-file", str(cursor)).stdout.splitlines()
    first = json.loads(rest[0])["position"] if rest else 44
    assert 1 < first <= shown + 1, "nothing is left out, and the first is not shown again"


def test_the_event_waited_for_may_be_the_last_of_the_table(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("replay.cli.log.TABLE_ROWS_MAX", 3)
    assert len(log(root, "-o", "plain", "--until-match", "position == 3").stdout.splitlines()) == 4
    assert len(log(root, "-o", "plain", "--until-match", "position == 5").stdout.splitlines()) == 6
    assert len(log(root, "-o", "plain", "--until", "3").stdout.splitlines()) == 4


def test_a_reader_that_has_had_enough(root: Path) -> None:
    done = subprocess.run(
        f"{sys.executable} -m manager.cli log --json | head -n 1; exit ${{PIPESTATUS[0]}}",
        shell=True,
        executable="/bin/bash",
        env={**os.environ, "SANDTRAIL_ROOT": str(root)},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert done.returncode in {0, 141}  # all of it fits into a pipe
    assert done.stderr == "" or done.stderr.startswith("window: ")


async def test_following_across_restarts_of_the_writer(tmp_path: Path) -> None:
    path = tmp_path / LOG_FILE

    async def append(stream: str) -> None:
        event = NewEvent(type="sandbox.stopped", data={"reason": "\x1b]0;gone\x07 \u202eevil"})
        async with open_log(path) as writer:
            await writer.append(stream, [event], expected=ANY)

    await append("sandbox-a")
    command = [sys.executable, "-m", "manager.cli", "log", "-f", "--log", str(path)]
    command += ["--until-match", "sandbox == c", "--timeout", "60s"]
    async with await anyio.open_process(command, stderr=None) as process:
        assert process.stdout is not None
        reader = BufferedByteReceiveStream(process.stdout)
        lines = [await reader.receive_until(b"\n", 1000)]
        await append("sandbox-b")
        lines.append(await reader.receive_until(b"\n", 1000))
        await append("sandbox-c")
        lines.append(await reader.receive_until(b"\n", 1000))
        assert await process.wait() == 0
    assert [line.split()[0] for line in lines] == [b"1", b"2", b"3"]
    assert all(b"\x1b" not in line and rb"\x1b]0;gone\x07 \u202eevil" in line for line in lines)


def end(process: anyio.abc.Process) -> None:
    if process.returncode is None:
        process.kill()


async def follow(path: Path, stack: AsyncExitStack) -> anyio.abc.Process:
    """A follower that has printed the first event."""
    command = [sys.executable, "-m", "manager.cli", "log", "-f", "--log", str(path)]
    process = await stack.enter_async_context(
        await anyio.open_process(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    )
    stack.callback(end, process)
    assert process.stdout is not None
    await BufferedByteReceiveStream(process.stdout).receive_until(b"\n", 1000)
    return process


@pytest.mark.parametrize("restored", [True, False], ids=["replaced", "moved away"])
async def test_following_ends_when_the_file_is_not_the_log_any_more(
    tmp_path: Path, *, restored: bool
) -> None:
    """As when a backup is restored, or a new log is begun; whether it was written, or at rest."""
    path, moved = tmp_path / LOG_FILE, tmp_path / "old"
    async with AsyncExitStack() as stack:
        async with open_log(path) as writer:
            await writer.append("s", [NewEvent(type="a", data={})], expected=ANY)
            followers = [await follow(path, stack)]
        followers.append(await follow(path, stack))
        path.rename(moved)
        if restored:
            shutil.copy(moved, path)
        with anyio.fail_after(PATIENCE_S):
            for process in followers:
                assert await process.wait() == 5
                assert process.stderr is not None
                assert b"was moved away or replaced" in await process.stderr.receive()


def test_waiting_has_an_end(root: Path) -> None:
    done = log(root, "-f", "--after", "40", "--until-match", "type == x", "--timeout", "0.3")
    assert done.exit_code == 124
    assert len(done.stdout.splitlines()) == 3
