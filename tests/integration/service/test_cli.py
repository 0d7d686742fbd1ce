"""The command line as a person uses it."""

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.service.conftest import Service
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.runtime


def cli(
    service: Service, *args: str, env: dict[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "manager.cli", *args],
        env={**os.environ, "SANDTRAIL_ROOT": str(service.root), "COLUMNS": "200", **(env or {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )


@pytest.mark.parametrize(
    ("command", "code", "out"),
    [
        (["/bin/echo", "hello"], 0, "hello\n"),
        (["/bin/sh", "-c", "exit 3"], 3, ""),
        (["/bin/sh", "-c", "exit 255"], 255, ""),
        (["/no/such/program"], 127, ""),
        (["/etc"], 126, ""),
    ],
)
async def test_run_passes_output_and_status_through(
    service: Service, rootfs: Path, command: list[str], code: int, out: str
) -> None:
    done = cli(service, "run", "--rootfs", str(rootfs), "--", *command)
    assert (done.returncode, done.stdout) == (code, out), done.stderr
    assert json.loads(cli(service, "ps", "--json").stdout)["items"] == []


async def test_run_under_a_name_that_is_taken_leaves_what_has_it(
    service: Service, rootfs: Path
) -> None:
    where = ("--rootfs", str(rootfs), "--", "/bin/sleep", "600")
    for name in ("web", "web/job"):
        assert cli(service, "run", "-d", "--name", name, *where).returncode == 0
    for name in ("web", "web/job"):
        taken = cli(service, "run", "--name", name, *where)
        assert (taken.returncode, taken.stderr.count("already exists")) == (125, 1), taken.stderr
    items = json.loads(cli(service, "ps", "--json").stdout)["items"]
    assert [each["Status"] for each in items[0]["Containers"]] == ["running", "running"]


async def test_create_start_wait_kill_rm(service: Service, rootfs: Path) -> None:
    where = ("--rootfs", str(rootfs), "--", "/bin/sleep", "600")
    assert cli(service, "create", "web", *where).returncode == 0
    assert cli(service, "start", "web").returncode == 0
    again = cli(service, "start", "web")
    assert again.returncode == 125
    assert "cannot start root container: state=started" in again.stderr
    detached = cli(service, "run", "-d", "--name", "web/job", *where)
    assert detached.stdout == "web/job\n", detached.stderr
    items = json.loads(cli(service, "ps", "--json").stdout)["items"]
    assert [each["CID"] for each in items[0]["Containers"]] == ["web", "job"]
    assert "job" in cli(service, "ps").stdout
    assert cli(service, "wait", "web/job", "--timeout", "100ms").returncode == 124
    restored = cli(service, "wait", "web", "--for", "restored", "--timeout", "9s")
    assert (restored.returncode, "is not being restored" in restored.stderr) == (1, True)
    assert cli(service, "rm", "web").returncode == 1
    assert cli(service, "kill", "web/job", "KILL").returncode == 0
    waited = cli(service, "wait", "web/job", "--json")
    assert json.loads(waited.stdout)["exit"] == {"type": "signaled", "signal": 9, "core": False}
    assert cli(service, "rm", "web/job").returncode == 0
    assert cli(service, "wait", "web/job").stdout == "137\n"
    assert cli(service, "rm", "--force", "web").returncode == 0


async def test_log_prints_every_event_and_parses(service: Service, rootfs: Path) -> None:
    cli(service, "run", "--rootfs", str(rootfs), "--name", "one", "--", "/bin/true")
    lines = [json.loads(line) for line in cli(service, "log", "--json").stdout.splitlines()]
    assert [each["position"] for each in lines] == list(range(1, len(lines) + 1))
    ours = [each["type"] for each in lines if each["stream"] == "sandbox-one"]
    assert ours == [
        "sandbox.created",
        "sandbox.start_requested",
        "sandbox.started",
        "container.exited",
        "sandbox.stopped",
        "sandbox.delete_requested",
        "container.destroy_requested",
        "container.destroyed",
        "sandbox.deleted",
    ]
    table = cli(service, "log", "--sandbox", "one").stdout
    assert "container.exited" in table
    assert "exit 0" in table


@pytest.mark.parametrize("args", [("ps",), ("wait", "x"), ("rm", "x"), ("kill", "x")])
async def test_without_a_service_the_error_says_what_to_do(
    tmp_path: Path, args: tuple[str, ...]
) -> None:
    nobody = Service(tmp_path)
    done = cli(nobody, *args)
    assert done.returncode == 1
    assert "is `sandtrail serve` running?" in done.stderr
    assert "Traceback" not in done.stderr


def test_usage_errors_end_with_2() -> None:
    nobody = Service(Path("/nonexistent"))
    assert cli(nobody, "run").returncode == 2
    for no_signal in ("NOSUCH", "\u00b2", "9" * 5000):
        assert cli(nobody, "kill", "x", no_signal).returncode == 2
    assert cli(nobody, "nothing").returncode == 2


@pytest.mark.parametrize("option", ["--stop-grace", "--seal-seconds"])
@pytest.mark.parametrize("number", ["nan", "inf", "-1"])
def test_what_is_no_number_of_seconds(tmp_path: Path, option: str, number: str) -> None:
    done = cli(Service(tmp_path / "state"), "serve", option, number)
    assert (done.returncode, option in done.stderr) == (2, True), done.stderr
    assert not (tmp_path / "state").exists()


async def test_a_slash_without_a_container_does_not_mean_the_sandbox(
    service: Service, rootfs: Path
) -> None:
    idle = ("--rootfs", str(rootfs), "--", "/bin/sleep", "600")
    assert cli(service, "run", "-d", "--name", "web", *idle).returncode == 0
    for command in (("stop",), ("kill",), ("rm", "--force"), ("wait",), ("inspect",)):
        done = cli(service, *command, "web/")
        assert done.returncode == 2, done.stderr
        assert "'web/' names no container after its slash" in done.stderr
    for command, more in (("pause", ()), ("resume", ()), ("checkpoint", ("image",))):
        done = cli(service, command, "web/web", *more)
        assert (done.returncode, "this is for all of a sandbox" in done.stderr) == (2, True)
    assert cli(service, "run", "--name", "other/", *idle).returncode == 2
    items = json.loads(cli(service, "ps", "--json").stdout)["items"]
    assert [each["Status"] for each in items[0]["Containers"]] == ["running"]
    assert len(items) == 1


async def test_doctor_names_every_engine(rootfs: Path) -> None:
    done = cli(Service(Path("/nonexistent")), "doctor", "--json")
    told = json.loads(done.stdout)
    assert {engine["name"] for engine in told["engines"]} == {"crun", "runc", "runsc", "bwrap"}
    for engine in told["engines"]:
        assert engine["works"] or engine["problem"]


async def test_a_second_service_is_refused_with_the_pid_of_the_first(service: Service) -> None:
    done = cli(service, "serve")
    assert done.returncode == 1
    assert str(service.pid) in done.stderr


async def test_a_reader_that_has_had_enough_is_no_error(service: Service, rootfs: Path) -> None:
    for _ in range(3):
        cli(service, "run", "--rootfs", str(rootfs), "--", "/bin/true")
    for arguments in (["log", "--json"], ["log", "--json", "--follow"]):
        reading = subprocess.Popen(
            [sys.executable, "-m", "manager.cli", *arguments, "--root", str(service.root)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert reading.stdout is not None
        assert reading.stderr is not None
        assert json.loads(reading.stdout.readline())["position"] == 1
        reading.stdout.close()
        cli(service, "run", "--rootfs", str(rootfs), "--", "/bin/true")
        # All of it may have fitted into the pipe; then it says what it looked at.
        assert reading.stderr.read().partition("window: #1 to ")[0] == ""
        reading.stderr.close()
        assert reading.wait(PATIENCE_S) in {0, 141}


async def test_an_interrupt_ends_a_follower_quietly_and_is_passed_on_by_run(
    service: Service, rootfs: Path
) -> None:
    follower = subprocess.Popen(
        [sys.executable, "-m", "manager.cli", "log", "-f", "--root", str(service.root)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert follower.stdout is not None
    assert "manager.started" in follower.stdout.readline()
    follower.send_signal(signal.SIGINT)
    assert "Traceback" not in follower.stdout.read()
    follower.stdout.close()
    assert follower.wait(PATIENCE_S) == 130

    script = "trap 'exit 9' INT; echo up; while :; do sleep 0.05; done"
    running = subprocess.Popen(
        [
            *(sys.executable, "-m", "manager.cli", "run", "--root", str(service.root)),
            *("--rootfs", str(rootfs), "--", "/bin/sh", "-c", script),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert running.stdout is not None
    assert running.stdout.readline() == "up\n"
    running.send_signal(signal.SIGINT)
    assert running.wait(PATIENCE_S) == 9
    running.stdout.close()


async def test_exec_passes_streams_and_status_on(service: Service, rootfs: Path) -> None:
    cli(service, "run", "-d", "--name", "web", "--rootfs", str(rootfs), "--", "/bin/sleep", "600")
    script = "cat; echo $A $HOME >&2; pwd; exit 9"
    command = ["exec", "-i", "-e", "A=b", "-w", "/tmp", "web", "sh", "-c", script]
    done = subprocess.run(
        [sys.executable, "-m", "manager.cli", *command],
        env={**os.environ, "SANDTRAIL_ROOT": str(service.root)},
        input="in\n",
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert (done.returncode, done.stdout, done.stderr) == (9, "in\n/tmp\n", "b /\n")
    assert cli(service, "exec", "web", "/nix").returncode == 127
    assert cli(service, "exec", "nix", "true").returncode == 125


async def test_exec_on_a_terminal(service: Service, rootfs: Path) -> None:
    cli(service, "run", "-d", "--name", "web", "--rootfs", str(rootfs), "--", "/bin/sleep", "600")
    master, slave = pty.openpty()
    command = ["exec", "-it", "web", "sh", "-c", "test -t 0 && read a && echo got $a; exit 4"]
    with subprocess.Popen(
        [sys.executable, "-m", "manager.cli", *command],
        env={**os.environ, "SANDTRAIL_ROOT": str(service.root)},
        stdin=slave,
        stdout=slave,
    ) as process:
        os.close(slave)
        os.write(master, b"word\n")
        seen = b""
        while b"got word" not in seen:
            seen += os.read(master, 1000)
        assert process.wait(PATIENCE_S) == 4
    os.close(master)


async def test_a_mark_is_made_by_the_service_and_found_by_its_name(service: Service) -> None:
    made = cli(service, "mark", "add", "deploy", "-m", "v2 goes out")
    assert made.returncode == 0, made.stderr
    assert made.stdout.startswith("mark:deploy is #")
    early = cli(service, "mark", "add", "start", "#1", "--json")
    assert json.loads(early.stdout) == {
        "schema": "sandtrail.mark/v1", "name": "start", "position": 1,
    }  # fmt: skip
    again = cli(service, "mark", "add", "deploy")
    assert (again.returncode, again.stderr.count('"deploy" already exists')) == (1, 1)
    assert cli(service, "mark", "add", "nothing", "#0").returncode == 5
    assert cli(service, "mark", "add", "never", "mark:strat").returncode == 5
    listed = json.loads(cli(service, "mark", "ls", "--json").stdout)["items"]
    assert [each["name"] for each in listed] == ["deploy", "start"]
    assert listed[0]["message"] == "v2 goes out"
    assert listed[0]["actor"]["uid"] == os.getuid()
    shown = cli(service, "ps", "--at", "mark:start", "--json")
    assert json.loads(shown.stdout)["as_of"]["position"] == 1
