"""What the commands that speak to a service print as JSON has the shape that is published."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.integration.service.conftest import Service
from tests.integration.service.test_cli import cli

pytestmark = pytest.mark.runtime

SCHEMAS = Path(__file__).resolve().parents[3] / "docs" / "schemas"


def schema_of(told: dict[str, Any]) -> Any:
    name, _, version = told["schema"].removeprefix("sandtrail.").partition("/")
    return json.loads((SCHEMAS / f"{name}.{version}.json").read_text())


def told_by(service: Service, *args: str, code: int = 0) -> dict[str, Any]:
    """What a command prints, which is what is published and not a word more."""
    done = cli(service, "--json", *args)
    assert done.returncode == code, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    jsonschema.validate(told, schema_of(told))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**told, "more": 1}, schema_of(told))
    return told


async def test_every_command_of_the_service(service: Service, rootfs: Path) -> None:
    jsonschema.validate(service.told, schema_of(service.told))
    sleep = ("--rootfs", str(rootfs), "--", "/bin/sleep", "600")
    assert told_by(service, "create", "web", *sleep)["sandbox"] == "web"
    assert told_by(service, "start", "web")["container"] == "web"
    assert told_by(service, "run", "-d", "--name", "web/job", *sleep)["exit"] is None
    short = ("--rootfs", str(rootfs), "--", "/bin/sh", "-c", "exit 3")
    assert told_by(service, "run", *short, code=3)["exit"] == {"type": "exited", "code": 3}
    ended = told_by(service, "exec", "web", "/bin/sh", "-c", "kill -9 $$", code=137)["exit"]
    assert ended == {"type": "signaled", "signal": 9, "core": False}
    assert [each["CID"] for each in told_by(service, "ps")["items"][0]["Containers"]] == [
        "web", "job",
    ]  # fmt: skip
    assert (
        told_by(service, "ps", "--filter", "name=j*")["items"][0]["Containers"][0]["CID"] == "job"
    )
    assert (
        told_by(service, "urpc", "sandboxManager.List")["result"] == told_by(service, "ps")["items"]
    )
    assert told_by(service, "inspect", "web")["item"]["phase"] == "started"
    assert told_by(service, "inspect", "web/job")["item"]["status"] == "running"
    assert told_by(service, "inspect", "job") == told_by(service, "inspect", "web/job")
    assert "sleep" in {each["cmd"] for each in told_by(service, "top", "web")["items"]}
    assert told_by(service, "stats", "web/job")["event"]["id"] == "job"
    assert told_by(service, "pause", "web")["sandbox"] == "web"
    assert told_by(service, "resume", "web")["sandbox"] == "web"
    assert told_by(service, "mark", "add", "now")["name"] == "now"
    assert [each["name"] for each in told_by(service, "mark", "ls")["items"]] == ["now"]
    assert told_by(service, "kill", "web/job", "KILL")["signal"] == 9
    assert told_by(service, "wait", "web/job")["exit"]["signal"] == 9
    assert told_by(service, "rm", "web/job")["container"] == "web/job"
    gone = told_by(service, "ps", "--all")["items"][0]["Containers"]
    assert [each["Status"] for each in gone] == ["running", "destroyed"]
    assert told_by(service, "stop", "web", "-t", "0")["killed"]
    assert told_by(service, "rm", "--force", "web")["container"] == "web"
    told_by(service, "audit", "reconcile")


@pytest.mark.parametrize("service", ["runsc"], indirect=True)
async def test_checkpoint_and_restore(service: Service, rootfs: Path, tmp_path: Path) -> None:
    run = ("run", "-d", "--name", "web", "--rootfs", str(rootfs), "--", "/bin/sleep", "600")
    told_by(service, *run)
    image = tmp_path / "image"
    made = told_by(service, "checkpoint", "web", str(image))
    assert made["image_bytes"] == image.stat().st_size
    back = told_by(service, "restore", "again", str(image), "--rootfs", str(rootfs))
    assert back["containers"] == 1


async def test_doctor(service: Service) -> None:
    assert len(told_by(service, "doctor")["engines"]) == 4
