"""What gVisor's own tests change in a spec between a checkpoint and its restore, and what it says.

Source: gVisor runsc/container, its tests of restores, as behaviour. The texts, point by point, are
in `test_domain_restore_spec.py`.
"""

from typing import Any, Final

import pytest

from manager.domain import restore_events as r
from manager.domain.decide import decide
from tests.unit.domain import builders as b

MOUNT: Final = {"destination": "/data", "type": "bind", "source": "/a", "options": ["ro"]}
LINUX: Final[dict[str, Any]] = {
    "namespaces": [{"type": "pid"}, {"type": "ipc", "path": "/proc/1/ns/ipc"}],
    "devices": [{"path": "/dev/one", "type": "c", "major": 1, "minor": 9}],
    "resources": {"cpu": {"shares": 2}},
}
CAPABILITIES: Final = {"bounding": ["CAP_CHOWN", "CAP_KILL"]}
SAVED: Final = b.spec_object("root", mounts=[MOUNT], linux=LINUX) | {
    "process": b.a_process(args=["/bin/sleep", "1000"], capabilities=CAPABILITIES)
}


def changed(process: Any = None, linux: Any = None, **members: Any) -> dict[str, Any]:
    now: dict[str, Any] = {**SAVED, **members}
    now["process"] = {**now["process"], **(process or {})}
    now["linux"] = {**now["linux"], **(linux or {})}
    return now


def annotated(key: str, value: str) -> dict[str, Any]:
    return changed(annotations={**b.spec_object("root")["annotations"], key: value})


def restored(now: dict[str, Any], before: Any = SAVED, policy: int = 2) -> r.RestoreValidated:
    conf = {"RestoreSpecValidation": policy}
    state = b.history(b.named_create(request=b.a_request("s1", conf=conf)))
    command = b.restore("root", spec_object=now, image_specs={"root": before})
    validated = decide(state, command)[1]
    assert isinstance(validated, r.RestoreValidated)
    return validated


SPACES: Final = LINUX["namespaces"]
NEW_SPACE: Final = [*SPACES, {"type": "cgroup"}]
OTHER_PATH: Final = [{"type": "pid"}, {"type": "ipc", "path": "/proc/2/ns/ipc"}]
DEVICES: Final = [*LINUX["devices"], {"path": "/dev/two", "type": "c", "major": 1, "minor": 8}]
MUTATIONS: Final = {
    "terminal": (changed({"terminal": True}), "Terminal"),
    "extra argument": (changed({"args": ["/bin/sleep", "1000", "1"]}), "Args"),
    "extra device": (changed(linux={"devices": DEVICES}), "Devices"),
    "new type of namespace": (changed(linux={"namespaces": NEW_SPACE}), "Namespace"),
    "other path of a namespace": (changed(linux={"namespaces": OTHER_PATH}), ""),
    "seccomp": (changed(linux={"seccomp": {"defaultAction": "SCMP_ACT_ALLOW"}}), "Seccomp"),
    "a mount twice": (changed(mounts=[MOUNT, MOUNT]), ""),
    "twice with another source": (changed(mounts=[MOUNT, {**MOUNT, "source": "/b"}]), "Mounts"),
    "other destination": (changed(mounts=[{**MOUNT, "destination": "/elsewhere"}]), "Mounts"),
    "annotation of a mount's source": (annotated("dev.gvisor.spec.mount.data.source", "/b"), ""),
    "annotation that renames": (annotated("dev.gvisor.container-name-remap.1", "x=y"), ""),
    "annotation that is a flag": (annotated("dev.gvisor.flag.overlay2", "none"), "Annotations"),
    "internal annotation": (annotated("dev.gvisor.internal.seccomp", "x"), ""),
    "annotation of the debug log": (annotated("dev.gvisor.flag.debug-log", "/x"), ""),
    "capability": (
        changed({"capabilities": {"bounding": ["CAP_CHOWN", "CAP_FOWNER"]}}),
        "Capabilities.Bounding",
    ),
    "resources": (changed(linux={"resources": {"cpu": {"shares": 9}}}), ""),
}


def test_there_are_sixteen() -> None:
    assert len(MUTATIONS) == 16
    assert restored(SAVED).error == ""


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutation(name: str) -> None:
    now, field = MUTATIONS[name]
    validated = restored(now)
    assert [each.field for each in validated.mismatches] == ([field] if field else [])
    begins = (
        "failed to handle restore spec validation: failed to validate restore spec: failed to "
        f'validate spec for container "root": "{field}" does not match across checkpoint restore'
    )
    assert validated.error.startswith(begins) if field else not validated.error


@pytest.mark.parametrize("name", MUTATIONS)
@pytest.mark.parametrize("policy", [0, 1])
def test_who_ignores_or_warns_takes_anything_and_it_is_on_record(name: str, policy: int) -> None:
    now, field = MUTATIONS[name]
    validated = restored(now, policy=policy)
    assert (validated.error, validated.policy) == ("", policy)
    assert validated.verdict == ("differs" if field else "same")


@pytest.mark.parametrize(
    ("args", "taken"),
    [
        (["/usr/bin/sleep", "1000"], True),
        (["sleep", "1000"], True),
        (["/bin/sleeper", "1000"], False),
        (["/bin/sleep", "999"], False),
        (["1000", "/bin/sleep"], False),
        ([], False),
    ],
)
def test_a_program_may_move_but_not_change(args: list[str], taken: bool) -> None:
    assert (not restored(changed({"args": args})).error) == taken


@pytest.mark.parametrize(("before", "now"), [(None, []), ([], None), (None, None)])
def test_no_capabilities_and_an_empty_list_are_the_same(before: Any, now: Any) -> None:
    def with_ambient(value: Any) -> dict[str, Any]:
        given = {**CAPABILITIES, **({} if value is None else {"ambient": value})}
        return changed({"capabilities": given})

    assert restored(with_ambient(now), with_ambient(before)).error == ""
