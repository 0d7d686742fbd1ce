"""What `--json` prints has the shape that is published under docs/schemas."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import click
import jsonschema
import pytest
from click.testing import CliRunner

from manager.cli import cli
from manager.schema.layout import LOG_FILE
from tests.integration.decided_log import write_story

SCHEMAS = Path(__file__).resolve().parents[2] / "docs" / "schemas"
GOLDEN = Path(__file__).parent / "logs" / "log_v1.db"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("story")
    anyio.run(write_story, root)
    return root


def schema_of(told: Any) -> Any:
    name, _, version = told["schema"].removeprefix("sandtrail.").partition("/")
    return json.loads((SCHEMAS / f"{name}.{version}.json").read_text())


CALLS = [
    ("ps", "--at", "head"),
    ("ps", "--all", "--filter", "state=running"),
    ("inspect", "lenient", "--at", "head"),
    ("inspect", "lenient/web", "--at", "head"),
    ("replay", "show", "--at", "#9"),
    ("replay", "show", "strict", "--at", "#15"),
    ("replay", "diff", "10", "20"),
    ("replay", "diff", "20", "10"),
    ("replay", "why", "lenient/web"),
    ("replay", "why", "blind.deleting"),
    ("replay", "why", "lenient/web", "--not", "running"),
    ("replay", "why", "strict", "--not", "started"),
    ("replay", "check"),
    ("replay", "whatif", "--set", "engine=bwrap"),
    ("replay", "whatif", "--set", "engine=crun"),
    ("replay", "whatif", "--set", "restore-spec-validation=ignore", "--cascade"),
    ("replay", "bisect", "--bad", "any(phase == restoreFailed)"),
    ("replay", "bisect", "--bad", "any(phase == nothing)"),
    ("audit", "show", "#15"),
    ("--version",),
    ("help",),
    ("help", "exit-codes"),
    ("completion", "fish"),
    ("mark", "ls"),
]


PRINTS = {
    **{name: (name,) for name in (
        "create", "start", "run", "exec", "wait", "kill", "pause", "resume", "checkpoint",
        "restore", "rm", "stop", "urpc", "ps", "inspect", "top", "stats", "doctor", "help",
        "completion", "demo",
    )},
    "serve": ("ready",),
    "log": ("event",),
    "events": ("event",),
    "mark add": ("mark",),
    "mark ls": ("marks",),
    "replay show": ("ps", "inspect"),
    "replay diff": ("diff",),
    "replay step": ("step",),
    "replay why": ("why", "why_not"),
    "replay check": ("check",),
    "replay whatif": ("whatif",),
    "replay bisect": ("bisect",),
    "audit log": ("event",),
    "audit show": ("show",),
    "audit verify": ("verification",),
    "audit checkpoint": ("checkpoint-note",),
    "audit snapshot": ("snapshot",),
    "audit prove": ("proof",),
    "audit check-proof": ("check-proof",),
    "audit stats": ("audit-stats",),
    "audit export": ("event",),
    "audit report": ("audit-report",),
    "audit reconcile": ("audit-reconcile",),
}  # fmt: skip
"""Which schemas the JSON of each command has."""


@pytest.mark.parametrize("args", CALLS, ids=" ".join)
def test_what_is_printed_is_what_is_published(root: Path, args: tuple[str, ...]) -> None:
    done = CliRunner().invoke(cli, [*args, "--json"], env={"SANDTRAIL_ROOT": str(root)})
    told = json.loads(done.stdout)
    jsonschema.validate(told, schema_of(told))


def test_every_line_of_a_log(root: Path, tmp_path: Path) -> None:
    shutil.copy(GOLDEN, tmp_path / LOG_FILE)
    for place in (root, tmp_path):
        done = CliRunner().invoke(cli, ["log", "--json"], env={"SANDTRAIL_ROOT": str(place)})
        for line in done.stdout.splitlines():
            told = json.loads(line)
            jsonschema.validate(told, schema_of(told))


def test_every_line_of_others(root: Path) -> None:
    env = {"SANDTRAIL_ROOT": str(root)}
    for args in (("replay", "step"), ("audit", "export")):
        lines = CliRunner().invoke(cli, [*args, "--json"], env=env).stdout.splitlines()
        assert len(lines) > 20
        for line in lines:
            told = json.loads(line)
            jsonschema.validate(told, schema_of(told))


def commands(group: click.Group, *above: str) -> Iterator[tuple[str, click.Command]]:
    for name in group.list_commands(click.Context(group)):
        found = group.get_command(click.Context(group), name)
        if isinstance(found, click.Group):
            yield from commands(found, *above, name)
        elif found is not None:
            yield " ".join((*above, name)), found


def test_every_command_has_json_of_a_published_schema() -> None:
    options = {
        name: {each for param in found.params for each in param.opts}
        for name, found in commands(cli)
    }
    assert [name for name in options if "--json" not in options[name]] == []
    assert options.keys() == PRINTS.keys()
    published = {path.name.removesuffix(".v1.json") for path in SCHEMAS.iterdir()}
    assert published == {name for names in PRINTS.values() for name in names} | {"version"}


def test_a_schema_refuses_what_is_not_in_it(root: Path) -> None:
    done = CliRunner().invoke(cli, ["ps", "--at", "9", "--json"], env={"SANDTRAIL_ROOT": str(root)})
    told = json.loads(done.stdout)
    for wrong in ({**told, "more": 1}, {name: told[name] for name in told if name != "items"}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema_of(told))


def test_every_published_schema_is_one() -> None:
    for path in SCHEMAS.iterdir():
        schema = json.loads(path.read_text())
        jsonschema.Draft202012Validator.check_schema(schema)
        name, version, _ = path.name.split(".")
        assert schema["title"] == f"sandtrail.{name}/{version}"
