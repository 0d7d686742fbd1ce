"""``ps`` and ``inspect`` of the past: what they show and in which layout."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from manager.cli import cli
from manager.schema.layout import LOG_FILE
from replay.trail import Trail

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "logs" / "log_v1.db"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    shutil.copy(GOLDEN, tmp_path / LOG_FILE)
    return tmp_path


def call(root: Path, *args: str) -> Result:
    env = {"SANDTRAIL_ROOT": str(root), "TZ": "UTC"}
    return CliRunner().invoke(cli, list(args), env=env, prog_name="sandtrail")


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ("#0", {}),
        ("#4", {"hello": "creating"}),
        ("#6", {"hello": "running"}),
        ("#7", {"hello": "stopped"}),
        ("2026-01-01T00:00:00.604", {"hello": "running"}),
        ("head~13", {"hello": "stopped", "fails": "stopped", "web": "running", "side": "running"}),
    ],
)
def test_who_was_there(root: Path, when: str, expected: dict[str, str]) -> None:
    done = call(root, "ps", "--json", "--at", when)
    told = json.loads(done.stdout)
    assert told["schema"] == "sandtrail.ps/v1"
    found = {
        each["CID"]: each["Status"] for sandbox in told["items"] for each in sandbox["Containers"]
    }
    assert found == expected


def test_the_layout_is_that_of_now(root: Path) -> None:
    done = call(root, "ps", "--at", "#7")
    assert done.stderr.splitlines() == [
        "as of #7  2026-01-01T00:00:00.606+00:00",
        "containers: 1; sandboxes: 1",
    ]
    assert done.stdout.split()[:7] == [
        "SANDBOX", "CONTAINER", "STATUS", "PID", "ENGINE", "STARTED", "COMMAND"
    ]  # fmt: skip
    assert "stopped (exit 0)" in done.stdout


def test_everything_that_was_known(root: Path) -> None:
    done = call(root, "inspect", "web", "--at", "#30")
    assert "phase: started" in done.stdout.splitlines()
    whole = json.loads(call(root, "inspect", "web", "--at", "30", "--json").stdout)
    side = json.loads(call(root, "inspect", "web/side", "--at", "30", "--json").stdout)
    assert whole["as_of"]["position"] == side["as_of"]["position"] == 30
    assert whole["item"]["containers"]["side"] == side["item"]
    assert side["item"]["status"] == "running"


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (("inspect", "wob", "--at", "30"), 5, "sandbox 'wob' not found; did you mean 'web'?"),
        (("inspect", "web/sode", "--at", "30"), 5, "did you mean 'side'?"),
        (("inspect", "zzz", "--at", "30"), 5, "sandbox 'zzz' not found\n"),
        (("ps", "--at", "soon"), 2, "'soon' is no point of a log"),
        (("ps", "--at", "2001-01-01"), 5, "#1 to #43, the first of 2026-01-01T00:00:00.000+00:00"),
        (("ps", "--at", "#44"), 5, "there is no #44; the log has #1 to #43"),
        (("ps", "--at", "2100-01-01"), 5, "that time is still to come"),
        (("ps", "--log", "/nowhere"), 5, "the log /nowhere is not there"),
        (("ps", "--log", __file__), 5, "is not an SQLite database"),
    ],
)
def test_what_was_not_there(root: Path, args: tuple[str, ...], code: int, says: str) -> None:
    done = call(root, *args)
    assert says in done.stderr
    assert done.exit_code == code
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (("state=running",), ["web", "side"]),
        (("status=running", "sandbox=web", "name=s*"), ["side"]),
        (("container=web", "container=hello"), ["hello", "web"]),
        (("engine=bwrap",), ["hello", "fails", "web", "side"]),
        (("engine=bwrap", "id=fails"), ["fails"]),
        (("command=e?ho",), ["hello"]),
        (("sandbox=nobody",), []),
    ],
)
def test_only_those_that_are_asked_for(
    root: Path, asked: tuple[str, ...], expected: list[str]
) -> None:
    options = [word for each in asked for word in ("--filter", each)]
    told = json.loads(call(root, "ps", "--json", "--at", "head~13", *options).stdout)
    assert [each["CID"] for sandbox in told["items"] for each in sandbox["Containers"]] == expected
    counted = call(root, "ps", "--at", "head~13", *options).stderr
    assert f"containers: {len(expected)} of 4; sandboxes: {len(told['items'])} of 3" in counted


def test_what_was_destroyed_is_shown_if_asked_for(root: Path) -> None:
    def cids(*args: str) -> dict[str, str]:
        items = json.loads(call(root, "ps", "--json", "--at", "#40", *args).stdout)["items"]
        return {each["CID"]: each["Status"] for one in items for each in one["Containers"]}

    less, everything = cids(), cids("--all")
    assert "hello" not in less
    assert everything == {"hello": "destroyed", **less}
    assert cids("-a", "--filter", "state=destroyed") == {"hello": "destroyed"}


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ("colour=red", "is no filter: want sandbox=…, container=…, state=…, engine=…"),
        ("running", "is no filter: want sandbox=…"),
        ("state=runing", "nothing is ever in the state 'runing': did you mean 'running'?"),
        ("state=", "want absent, created, "),
    ],
)
def test_filters_that_are_none(root: Path, asked: str, says: str) -> None:
    done = call(root, "ps", "--at", "head", "--filter", asked)
    assert (done.exit_code, done.stdout) == (2, "")
    assert says in " ".join(done.stderr.split())


async def test_the_same_from_python(root: Path) -> None:
    async with Trail.open(root / LOG_FILE) as trail:
        fold, moment = await trail.at("#7")
        assert moment.position == 7
        assert fold.live["hello"].state.containers["hello"].status == "stopped"
        assert await trail.sandbox("web", "#7") is None
        assert (await trail.sandbox("web", "#30")).phase == "started"  # type: ignore[union-attr]  # a container of the log
        assert (await trail.as_of(0)).time_ns == 0
        assert await trail.record(99) is None
