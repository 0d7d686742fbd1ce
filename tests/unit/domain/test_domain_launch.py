"""What an accepted start says: its name, whose PID namespace it joins, what the engine must do."""

from typing import Any

import pytest
from msgspec.structs import replace

from manager.domain import commands as c
from manager.domain import events as e
from manager.domain.decide import decide
from manager.domain.process_rules import CAPABILITIES, NO_ID, RLIMITS, search_path
from manager.domain.state import ABSENT, LaunchIntent, Sandbox
from tests.unit.domain.builders import (
    DIRECTORY,
    RUNNING,
    SANDBOX,
    STARTED,
    STDIO,
    STOPPED,
    TTY,
    WAITING,
    a_process,
    a_request,
    a_spec,
    create,
    history,
    launched,
    new,
    reports_exited,
    reports_failed,
    reports_started,
    start,
)

NAME = "io.kubernetes.cri.container-name"
REMAP = "dev.gvisor.container-name-remap."


def intent_of(state: Sandbox, command: c.StartSubcontainer) -> LaunchIntent:
    (event,) = decide(state, command)
    assert isinstance(event, e.ContainerStartAccepted), event
    assert event.container == command.request.cid
    return event.intent


def with_pid(path: str | None) -> Any:
    entry = {"type": "pid"} if path is None else {"type": "pid", "path": path}
    return a_spec(linux={"namespaces": [{"type": "ipc"}, entry]})


@pytest.mark.parametrize(
    ("annotations", "name"),
    [
        (None, "__no_name_1"),
        ({NAME: "web"}, "web"),
        ({NAME: "web", REMAP + "1": "web=shop"}, "shop"),
        ({NAME: "web", REMAP + "1": "db=shop"}, "web"),
        ({NAME: "web", REMAP + "1": "web"}, "web"),
        ({NAME: "web", REMAP + "1": "web=a=b"}, "web"),
        ({REMAP + "1": "web=shop"}, "__no_name_1"),
        ({NAME: "web", REMAP + "1": "db=x", REMAP + "2": "web=shop"}, "shop"),
        ({NAME: "web", "other." + REMAP: "web=shop"}, "web"),
    ],
)
def test_names(annotations: dict[str, str] | None, name: str) -> None:
    spec = a_spec(annotations=annotations)
    intent = intent_of(history(*WAITING), start(spec=spec))
    assert intent.name == name
    after = history(start(spec=spec), state=history(*WAITING))
    assert after.names == {"__no_name_0": SANDBOX, name: "c1"}


def test_a_free_number_is_found_for_the_nameless() -> None:
    named = a_spec(annotations={NAME: "__no_name_2"})
    state = history(*WAITING, start(spec=named), reports_started(), new("c2"))
    assert intent_of(state, start("c2")).name == "__no_name_3"


def test_a_second_attempt_keeps_its_number() -> None:
    state = history(*WAITING, start(), reports_failed())
    assert intent_of(state, start(launch_id="L-2")).name == "__no_name_1"
    assert history(start(launch_id="L-2"), state=state).names["__no_name_1"] == "c1"


def test_a_second_attempt_under_another_name_gives_the_first_back() -> None:
    state = history(*WAITING, start(), reports_failed())
    again = start(spec=a_spec(annotations={NAME: "web"}), launch_id="L-2")
    assert history(again, state=state).names == {"__no_name_0": SANDBOX, "web": "c1"}


def test_a_destroyed_container_gives_its_name_back() -> None:
    state = history(*RUNNING, c.DestroySubcontainer(cid="c1"), c.ReportDestroyed(launch_id="L-c1"))
    assert state.names == {"__no_name_0": SANDBOX}


@pytest.mark.parametrize(
    ("spec", "joins", "path"),
    [
        (a_spec(), SANDBOX, ""),
        (a_spec(linux={}), SANDBOX, ""),
        (a_spec(linux={"namespaces": [{"type": "mount"}]}), SANDBOX, ""),
        (with_pid(None), None, ""),
        (with_pid(""), None, ""),
        (with_pid("/proc/99/ns/pid"), SANDBOX, "/proc/99/ns/pid"),
        (with_pid("/proc/98/ns/pid"), None, "/proc/98/ns/pid"),
        (with_pid("/unknown"), None, "/unknown"),
    ],
)
def test_pid_namespaces(spec: Any, joins: str | None, path: str) -> None:
    intent = intent_of(history(*WAITING), start(spec=spec))
    assert (intent.joins_pid_namespace, intent.pid_namespace_path) == (joins, path)


@pytest.mark.parametrize(
    ("outcome", "joins"),
    [
        ((), None),
        ((reports_started(),), "c1"),
        ((reports_failed(),), None),
        ((reports_started(), reports_exited()), None),
        (
            (
                reports_started(),
                c.DestroySubcontainer(cid="c1"),
                reports_exited(),
                c.ReportDestroyed(launch_id="L-c1"),
            ),
            None,
        ),
    ],
    ids=["starting", "running", "failed", "stopped", "destroyed"],
)
def test_the_same_path_joins_a_container_that_runs(outcome: Any, joins: str | None) -> None:
    spec = with_pid("/shared")
    state = history(*WAITING, start(spec=spec), *outcome, new("c2"))
    assert intent_of(state, start("c2", spec=spec)).joins_pid_namespace == joins


def test_the_first_of_several_is_joined() -> None:
    spec = with_pid("/shared")
    state = history(
        *(*WAITING, start(spec=spec), reports_started()),
        *(new("c2"), start("c2", spec=spec), reports_started("c2")),
        new("c3"),
    )
    assert intent_of(state, start("c3", spec=spec)).joins_pid_namespace == "c1"
    assert intent_of(state, start("c3", spec=with_pid("/else"))).joins_pid_namespace is None


def test_a_root_container_gets_a_new_pid_namespace_whatever_its_spec_says() -> None:
    (event,) = decide(history(), create(spec=with_pid("/proc/1/ns/pid")))
    assert isinstance(event, e.SandboxCreated)
    assert event.intent.joins_pid_namespace is None


def test_an_intent_carries_what_the_start_was() -> None:
    command = start(
        spec=a_spec(process=a_process(args=["sh", "-c"], env=["PATH=/a", "PATH=/b:/c"]))
    )
    intent = intent_of(history(*WAITING), command)
    assert intent.request == command.request
    assert (intent.launch_id, intent.engine_id) == ("L-c1", "e-c1")
    assert (intent.engine, intent.engine_version) == ("crun", "1.8")
    assert (intent.executable, intent.search_path) == ("sh", ("/b", "/c"))


@pytest.mark.parametrize(
    ("env", "directories"),
    [(None, ()), ([], ()), (["HOME=/"], ()), (["PATH="], ("",)), (["PATH=/a:/b"], ("/a", "/b"))],
)
def test_search_path(env: list[str] | None, directories: tuple[str, ...]) -> None:
    assert search_path(a_spec(process=a_process(env=env))) == directories


@pytest.mark.parametrize(
    ("needed", "lacks", "error"),
    [
        ((), ("seccomp",), ""),
        (("seccomp",), (), ""),
        (("seccomp",), ("seccomp",), "engine crun does not support seccomp"),
        (
            ("terminal", "seccomp", "erofs"),
            ("erofs", "terminal"),
            "engine crun does not support terminal, erofs",
        ),
    ],
)
def test_what_the_engine_lacks(
    monkeypatch: pytest.MonkeyPatch,
    needed: tuple[str, ...],
    lacks: tuple[str, ...],
    error: str,
) -> None:
    monkeypatch.setattr("manager.domain.start.features_needed", lambda *_, **__: needed)
    engine = c.EngineFacts(name="crun", lacks=lacks)
    for state, command in (
        (history(*WAITING), start(engine=engine)),
        (history(), create(engine=engine)),
    ):
        (event,) = decide(state, command)
        assert getattr(event, "error", "") == error


def test_the_engine_is_told_whether_a_pid_namespace_is_joined(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waiting, seen = history(*WAITING), list[bool]()

    def note(*_: object, joins_pid_namespace: bool) -> tuple[str, ...]:
        seen.append(joins_pid_namespace)
        return ()

    monkeypatch.setattr("manager.domain.start.features_needed", note)
    decide(waiting, start())
    decide(waiting, start(spec=with_pid(None)))
    decide(history(), create())
    assert seen == [True, False, False]


@pytest.mark.parametrize("name", sorted(CAPABILITIES))
def test_every_capability_is_known(name: str) -> None:
    spec = a_spec(process=a_process(capabilities={"bounding": [name], "ambient": [name]}))
    intent_of(history(*WAITING), start(spec=spec))


@pytest.mark.parametrize("sets", ["bounding", "effective", "inheritable", "permitted", "ambient"])
def test_unknown_capabilities_are_found_in_every_set(sets: str) -> None:
    spec = a_spec(process=a_process(capabilities={sets: ["CAP_CHOWN", "cap_chown"]}))
    (event,) = decide(history(*WAITING), start(spec=spec))
    assert getattr(event, "error", "") == "getting root credentials"


def test_limits_of_linux_are_known() -> None:
    assert len(CAPABILITIES) == 41
    assert len(RLIMITS) == 16
    limits = [{"type": name, "soft": 1, "hard": 2} for name in sorted(RLIMITS)]
    intent_of(history(*WAITING), start(spec=a_spec(process=a_process(rlimits=limits))))


@pytest.mark.parametrize(
    ("process", "text"),
    [
        ({"env": ["A\0B=secret"]}, 'resolving env: variable "A\\x00B" holds a NUL'),
        ({"env": ["A=sec\0ret"]}, 'resolving env: variable "A" holds a NUL'),
        ({"env": ["=x", "A"]}, "resolving env: invalid variable: A"),
        ({"args": None}, "process args must name a program"),
        ({"args": ["a", "b\0"]}, "process args hold a NUL, which no argument can carry"),
        ({"cwd": "/a\0"}, "process cwd holds a NUL"),
        ({"user": {"uid": NO_ID}}, "uid 4294967295 is no user: the kernel takes it for no change"),
        ({"user": {"gid": NO_ID}}, "gid 4294967295 is no group: the kernel takes it for no"),
        ({"user": {"additionalGids": [1, NO_ID]}}, "gid 4294967295 is no group"),
    ],
)
def test_what_no_process_can_have(process: dict[str, Any], text: str) -> None:
    (event,) = decide(history(*WAITING), start(spec=a_spec(process=a_process(**process))))
    error = getattr(event, "error", "")
    assert error.startswith(f"creating new process: {text}")
    assert "sec" not in error


@pytest.mark.parametrize("hooks", [None, {}, {"prestart": None, "poststop": []}])
def test_no_hooks(hooks: Any) -> None:
    intent_of(history(*WAITING), start(spec=a_spec(hooks=hooks)))


@pytest.mark.parametrize("hooks", [{"poststop": [{"path": "/x"}]}, ["x"], "x"])
def test_hooks(hooks: Any) -> None:
    (event,) = decide(history(*WAITING), start(spec=a_spec(hooks=hooks)))
    wanted = "OCI hooks are not permitted: they would run on the host; start the service with"
    assert getattr(event, "error", "").startswith(wanted)
    permitted = start(spec=a_spec(hooks=hooks), permits=("hooks",))
    intent_of(history(*WAITING), permitted)
    engine = c.EngineFacts(name="bwrap", lacks=("hooks",))
    (event,) = decide(history(*WAITING), replace(permitted, engine=engine))
    assert getattr(event, "error", "") == "engine bwrap does not support hooks"


@pytest.mark.parametrize(("path", "refused"), [("", False), ("/run/notify.sock", True)])
def test_a_listener_of_seccomp(path: str, refused: bool) -> None:
    seccomp = {"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path}
    (event,) = decide(history(*WAITING), start(spec=a_spec(linux={"seccomp": seccomp})))
    wanted = f'seccomp listenerPath "{path}" is not supported by sandtrail: it names a socket'
    assert getattr(event, "error", "").startswith(wanted) == refused


@pytest.mark.parametrize(
    ("kind", "path", "refused"),
    [
        ("pid", "/p", False),
        ("network", "", False),
        ("network", "/proc/99/ns/net", False),
        ("ipc", "/proc/99/ns/ipc", False),
        ("uts", "/proc/99/ns/uts", False),
        ("network", "/proc/1/ns/net", True),
        ("network", "/proc/99/ns/../../1/ns/net", True),
        ("network", "/proc/99/ns/uts", True),
        ("ipc", "/proc/199/ns/ipc", True),
        ("uts", "/p", True),
    ],
)
def test_shared_namespaces_are_the_sandboxs_whatever_the_path(
    kind: str, path: str, refused: bool
) -> None:
    spec = a_spec(linux={"namespaces": [{"type": "mount"}, {"type": kind, "path": path}]})
    (event,) = decide(history(*WAITING), start(spec=spec))
    wanted = (
        f'joining the {kind} namespace "{path}" is not permitted: a container has that of its '
        "sandbox; start the service with --permit namespace-paths to join it, or with "
        "--ignore-namespace-paths to run it in that"
    )
    assert getattr(event, "error", "") == (wanted if refused else "")
    ignored = intent_of(history(*WAITING), start(spec=spec, ignore_namespace_paths=True))
    assert ignored.namespace_paths == {}
    permitted = start(spec=spec, permits=("namespace-paths",))
    name = {"network": "net"}.get(kind, kind)
    joined = intent_of(history(*WAITING), permitted).namespace_paths
    assert joined == ({name: path} if refused else {})
    engine = c.EngineFacts(name="runsc", lacks=("namespace-paths",))
    (event,) = decide(history(*WAITING), replace(permitted, engine=engine))
    wanted = "engine runsc does not support namespace-paths"
    assert getattr(event, "error", "") == (wanted if refused else "")


@pytest.mark.parametrize("permitted", [False, True])
def test_a_root_container_has_no_namespace_to_name(permitted: bool) -> None:
    spec = a_spec(linux={"namespaces": [{"type": "network", "path": "/proc/99/ns/net"}]})
    request = a_request(SANDBOX, ignore_namespace_paths=permitted)
    (event,) = decide(ABSENT, create(request, spec=spec))
    assert isinstance(event, e.SandboxCreated if permitted else e.SandboxCreateRejected)


@pytest.mark.parametrize("kind", ["mount", "user", "cgroup", "time", "anything"])
def test_paths_of_other_namespaces_are_refused(kind: str) -> None:
    spec = a_spec(linux={"namespaces": [{"type": kind, "path": "/p"}]})
    (event,) = decide(history(*WAITING), start(spec=spec))
    assert getattr(event, "error", "").startswith(f'joining the {kind} namespace "/p" is not')


@pytest.mark.parametrize(("files", "error"), [((), True), ((TTY,), False)])
def test_a_terminal_comes_with_the_creation(files: Any, error: bool) -> None:
    state = history(*STARTED, new(files=files))
    spec = a_spec(process=a_process(terminal=True))
    (event,) = decide(state, start(spec=spec, files=(DIRECTORY,)))
    assert bool(getattr(event, "error", "")) == error
    if not error:
        assert isinstance(event, e.ContainerStartAccepted)
        assert event.intent.plan.stdio is None
        assert event.intent.plan.root.lower_fd == 0


def test_a_terminal_is_used_up_by_a_failed_start() -> None:
    spec = a_spec(process=a_process(terminal=True))
    attempt = start(spec=spec, files=(DIRECTORY,))
    state = history(*STARTED, new(files=(TTY,)), attempt, reports_failed())
    (event,) = decide(state, start(spec=spec, files=(DIRECTORY,), launch_id="L-2"))
    assert getattr(event, "error", "") == (
        "terminal enabled but no TTY provided. Did you set --console-socket on create?"
    )


def test_a_failed_start_may_be_tried_again() -> None:
    state = history(*WAITING, start(), reports_failed(), start(launch_id="L-2"))
    assert state.containers["c1"].status == "starting"
    assert state.containers["c1"].failure is None
    state = history(c.ReportStarted(launch_id="L-2", launched=launched()), state=state)
    assert state.containers["c1"].status == "running"
    assert history(reports_failed(), state=state) == state


def test_a_container_that_ended_is_not_started_again() -> None:
    (event,) = decide(history(*STOPPED), start())
    assert getattr(event, "error", "") == 'container "c1" is already started'


def test_spec_with_terminal_needs_no_stdio_for_the_count() -> None:
    state = history(*STARTED, new(files=(TTY,)))
    spec = a_spec(process=a_process(terminal=True))
    (event,) = decide(state, start(spec=spec, request=a_request(files=())))
    assert getattr(event, "error", "") == (
        "start arguments must contain at least 1 FDs, but only got 0"
    )
    (event,) = decide(state, start(request=a_request(files=STDIO)))
    assert getattr(event, "error", "") == (
        "start arguments must contain at least 4 FDs, but only got 3"
    )
