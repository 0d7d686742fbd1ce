"""What a what-if may change."""

import pytest

from manager.domain.commands import StartRoot
from manager.domain.decide import decide
from manager.domain.events import ContainerStartAccepted, ContainerStartRejected
from manager.domain.state import Sandbox
from replay.facts import FactMissing, Facts
from replay.settings import SettingError, Settings, apply_settings, parse_settings
from tests.unit.domain import builders as b


def test_settings_as_people_write_them() -> None:
    assert parse_settings([]) == Settings()
    assert not parse_settings([]).changes_anything
    found = parse_settings(
        ["restore-spec-validation=warning", "ignore-namespace-paths=true", "engine=runsc"]
    )
    assert found == Settings(policy=1, ignore_namespace_paths=True, engine="runsc")
    assert found.changes_anything
    assert parse_settings(["permit=none"]) == Settings(permits=())
    both = parse_settings(["permit=namespace-paths,hooks"])
    assert both == Settings(permits=("hooks", "namespace-paths"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("policy=enforce", "'policy=enforce' is no setting: want restore-spec-validation="),
        ("engine", "'engine' is no setting"),
        ("engine=docker", "engine=docker: want crun, runc, runsc or bwrap"),
        ("restore-spec-validation=2", "want ignore, warning or enforce"),
        ("ignore-namespace-paths=yes", "want true or false"),
        ("permit=everything", "want none, or hooks, namespace-paths"),
    ],
)
def test_what_is_no_setting(text: str, says: str) -> None:
    with pytest.raises(SettingError, match=says):
        parse_settings([text])


def test_what_does_not_concern_a_command_leaves_it_alone() -> None:
    command = StartRoot(request_id="r")
    settings = Settings(policy=0, ignore_namespace_paths=True, engine="crun")
    assert apply_settings(settings, Sandbox(), command, Facts()) == (Sandbox(), command)


def test_a_start_can_be_decided_under_other_permissions() -> None:
    refused = b.start(spec=b.a_spec(hooks={"poststop": [{"path": "/x"}]}))
    state = b.history(*b.WAITING)
    for permits, wanted in {(): ContainerStartRejected, ("hooks",): ContainerStartAccepted}.items():
        settings = Settings(permits=permits)
        before, command = apply_settings(settings, state, refused, Facts())
        (event,) = decide(before, command)
        assert isinstance(event, wanted)


def test_an_engine_that_nobody_knew_is_not_guessed() -> None:
    from manager.domain.commands import Pause
    from manager.domain.request import EngineFacts

    pause = Pause(paused=True, pause_id="p", engine=EngineFacts(name="crun"))
    with pytest.raises(FactMissing, match="what the engine runsc could do then"):
        apply_settings(Settings(engine="runsc"), Sandbox(), pause, Facts())
