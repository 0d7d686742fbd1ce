"""Every refusal of a start: its exact text, the one event that it leaves, and its rank.

Each row of RULES breaks one rule of an otherwise good start. Rows are in the order in which the
rules are asked; of any two rows broken at once the earlier one must answer.
"""

from collections.abc import Callable
from itertools import combinations
from typing import Any

import pytest
from msgspec.structs import replace

from manager.domain import commands as c
from manager.domain import events as e
from manager.domain.decide import decide
from manager.domain.evolve import fold
from manager.domain.request import EngineFacts, GoferMountConf, StartRequest
from manager.domain.spec import parse_spec_object
from manager.domain.state import RequestOutcome, Sandbox
from manager.schema.events import encode_event
from tests.unit.domain.builders import (
    DIRECTORY,
    ENGINE,
    FILE,
    STDIO,
    WAITING,
    a_process,
    bind,
    fd,
    history,
)


class Case:
    """A start with every part it may have, and the sandbox it meets."""

    def __init__(self) -> None:
        self.state = history(*WAITING)
        self.process: dict[str, Any] | None = a_process()
        self.spec: dict[str, Any] = {"mounts": [bind("/data"), bind("/more", "ro")]}
        self.has_spec = True
        self.request: dict[str, Any] = {"conf": {}, "cid": "c1", "spec_digest": "sha256:0"}
        self.stdio = list(STDIO)
        self.filestores = [DIRECTORY, DIRECTORY]
        self.dev = DIRECTORY
        self.tar = FILE
        self.gofers = [DIRECTORY, DIRECTORY, FILE]
        self.confs = [
            GoferMountConf(lower=1, upper=2),
            GoferMountConf(lower=1, upper=3),
            GoferMountConf(lower=1, upper=0),
        ]
        self.engine: EngineFacts = ENGINE

    def command(self) -> c.StartSubcontainer:
        files = (*self.stdio, *self.filestores, self.dev, self.tar, *self.gofers)
        given = {
            "num_gofer_filestore_fds": len(self.filestores),
            "is_dev_io_file_present": True,
            "is_rootfs_upper_tar_file_present": True,
            "gofer_mount_confs": tuple(self.confs),
            "files": files,
            **self.request,
        }
        spec = None
        if self.has_spec:
            spec = parse_spec_object({"process": self.process, **self.spec})
        return c.StartSubcontainer(
            request=StartRequest(**given),
            spec=spec,
            engine=self.engine,
            launch_id="L-c1",
            engine_id="e-c1",
        )

    def sandbox(self, **changes: Any) -> None:
        self.state = replace(self.state, **changes)

    def container(self, **changes: Any) -> None:
        changed = replace(self.state.containers["c1"], **changes)
        self.sandbox(containers={**self.state.containers, "c1": changed})

    def in_process(self, **members: Any) -> None:
        if self.process is not None:
            self.process.update(members)


Rule = tuple[str, Callable[[Case], None], str]

ID_RULE = "1 to 128 characters of A-Z a-z 0-9 _ . + -, the first of them a letter, digit or _"
SETUP = "failed to setupFS: creating mount namespace: "
SUBMOUNTS = "failed to setupFS: mounting submounts: "


def _reused_request_id(case: Case) -> None:
    case.request.setdefault("request_id", "r")
    known = RequestOutcome(method="StartRoot", cid="s1", done=True)
    case.sandbox(requests={**case.state.requests, case.request["request_id"]: known})


RULES: list[Rule] = [
    (
        "request id too long",
        lambda case: case.request.update(request_id="r" * 129),
        "RequestID must have at most 128 characters, but has 129",
    ),
    (
        "request id of another call",
        _reused_request_id,
        'RequestID "r" was used for StartRoot of "s1" before',
    ),
    ("no spec", lambda case: setattr(case, "has_spec", False), "start arguments missing spec"),
    ("no config", lambda case: case.request.update(conf=None), "start arguments missing config"),
    (
        "no process",
        lambda case: setattr(case, "process", None),
        "start arguments missing process in spec",
    ),
    (
        "no container ID",
        lambda case: case.request.update(cid=""),
        "start argument missing container ID",
    ),
    (
        "bad container ID",
        lambda case: case.request.update(cid="../x"),
        f'invalid container ID "../x": want {ID_RULE}',
    ),
    (
        "spec too large",
        lambda case: case.request.update(spec_bytes=8388609),
        "start arguments spec must have at most 8388608 bytes, but has 8388609",
    ),
    (
        "sandbox not started",
        lambda case: case.sandbox(phase="created"),
        "sandbox is not in started state, cannot start subcontainer: state=created",
    ),
    (
        "sandbox on its way out",
        lambda case: case.sandbox(deleting=True),
        'sandbox "s1" is being deleted',
    ),
    (
        "negative filestore count",
        lambda case: case.request.update(num_gofer_filestore_fds=-1),
        "start arguments must contain 0 or more gofer filestore FDs, but say -1",
    ),
    (
        "too few FDs",
        lambda case: case.request.update(files=STDIO),
        "start arguments must contain at least 8 FDs, but only got 3",
    ),
    (
        "container destroyed",
        lambda case: case.container(status="destroyed"),
        'trying to start a deleted container "c1"',
    ),
    (
        "container on its way out",
        lambda case: case.container(destroying=True),
        'container "c1" is being destroyed',
    ),
    (
        "container started before",
        lambda case: case.container(status="running"),
        'container "c1" is already started',
    ),
    (
        "unknown capability",
        lambda case: case.in_process(capabilities={"permitted": ["CAP_CHOWN", "CAP_X"]}),
        "getting root credentials",
    ),
    (
        "unknown limit",
        lambda case: case.in_process(rlimits=[{"type": "RLIMIT_X", "soft": 1, "hard": 1}]),
        'creating new process: creating limits: unknown resource "RLIMIT_X"',
    ),
    (
        "env without =",
        lambda case: case.in_process(env=["A=1", "JUNK"]),
        "creating new process: resolving env: invalid variable: JUNK",
    ),
    (
        "no args",
        lambda case: case.in_process(args=[]),
        "creating new process: process args must name a program",
    ),
    (
        "relative cwd",
        lambda case: case.in_process(cwd="tmp"),
        'creating new process: process cwd must be absolute, but is "tmp"',
    ),
    (
        "no TTY",
        lambda case: case.in_process(terminal=True),
        "terminal enabled but no TTY provided. Did you set --console-socket on create?",
    ),
    (
        "directory as stdin",
        lambda case: case.stdio.__setitem__(0, DIRECTORY),
        "importing fds: stdin must be a pipe, a connected socket, a terminal, /dev/null or a "
        "regular file, but is an O_PATH descriptor",
    ),
    (
        "stdout not writable",
        lambda case: case.stdio.__setitem__(1, fd("fifo", "r")),
        "importing fds: stdout must be open for writing, but its access mode is r",
    ),
    (
        "hooks",
        lambda case: case.spec.update(hooks={"prestart": [{"path": "/x"}]}),
        "OCI hooks are not permitted: they would run on the host; start the service with "
        "--permit hooks to run them",
    ),
    (
        "namespace by path",
        lambda case: case.spec.update(linux={"namespaces": [{"type": "mount", "path": "/p"}]}),
        'joining the mount namespace "/p" is not supported by sandtrail: '
        "a path may lead out of the sandbox",
    ),
    (
        "rootfs without a lower layer",
        lambda case: case.confs.__setitem__(0, GoferMountConf(lower=0, upper=1)),
        f"{SETUP}unsupported rootfs config: none:memory",
    ),
    (
        "rootfs is a file",
        lambda case: case.gofers.__setitem__(0, FILE),
        f"{SETUP}the rootfs must be a directory, but is a regular file",
    ),
    (
        "upper tar is a directory",
        lambda case: setattr(case, "tar", DIRECTORY),
        f"{SETUP}rootfs upper tar must be a readable regular file or pipe, but is a directory",
    ),
    (
        "too few confs",
        lambda case: case.confs.pop(),
        f"{SUBMOUNTS}GoferMountConfs must have one entry for the rootfs and one for each of the 2 "
        "bind and EROFS mounts, but has 2",
    ),
    (
        "mount conf out of range",
        lambda case: case.confs.__setitem__(1, GoferMountConf(lower=9, upper=3)),
        f'{SUBMOUNTS}invalid gofer mount config: "9:anon"',
    ),
    (
        "mount is a fifo",
        lambda case: case.gofers.__setitem__(1, fd("fifo", "r")),
        f'{SUBMOUNTS}"/data" must be a directory or regular file, but is a fifo',
    ),
    (
        "mount destination",
        lambda case: case.spec["mounts"].append({"destination": "proc", "type": "proc"}),
        f'{SUBMOUNTS}mount destination "proc" must be an absolute path without ".."',
    ),
    (
        "gofer FDs left",
        lambda case: case.gofers.append(DIRECTORY),
        f"{SUBMOUNTS}not all gofer FDs were consumed, remaining: [10]",
    ),
    (
        "filestore FDs left",
        lambda case: case.filestores.append(DIRECTORY),
        f"{SUBMOUNTS}not all gofer Filestore FDs were consumed, remaining: [5]",
    ),
    (
        "/dev is a file",
        lambda case: setattr(case, "dev", FILE),
        f"{SUBMOUNTS}/dev must be a directory, but is a regular file",
    ),
    (
        "engine cannot",
        lambda case: setattr(case, "engine", replace(ENGINE, lacks=("everything", "this"))),
        "engine crun does not support this",
    ),
]

RENUMBERED = {
    ("too few FDs", "no TTY"): ("start arguments must contain at least 5 FDs, but only got 3"),
    ("too few FDs", "filestore FDs left"): (
        "start arguments must contain at least 9 FDs, but only got 3"
    ),
    ("gofer FDs left", "filestore FDs left"): (
        f"{SUBMOUNTS}not all gofer FDs were consumed, remaining: [11]"
    ),
}
"""Where the later trouble changes a number in the earlier text."""


@pytest.fixture(autouse=True)
def _needs_this(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine's part of the rules is tested on its own; here a start needs one feature."""
    monkeypatch.setattr("manager.domain.start.features_needed", lambda *_, **__: ("this",))


def answer(case: Case) -> tuple[Sandbox, c.StartSubcontainer, tuple[e.Event, ...]]:
    command = case.command()
    return case.state, command, decide(case.state, command)


def test_the_case_is_good_when_no_rule_is_broken() -> None:
    _, _, events = answer(Case())
    assert [type(event) for event in events] == [e.ContainerStartAccepted]


@pytest.mark.parametrize("rule", RULES, ids=[name for name, _, _ in RULES])
def test_refusal_has_its_text_leaves_one_event_and_no_change(rule: Rule) -> None:
    _, break_it, text = rule
    case = Case()
    break_it(case)
    state, command, events = answer(case)
    assert events == (
        e.ContainerStartRejected(
            container=command.request.cid,
            request=command.request,
            engine=command.engine,
            error=text,
        ),
    )
    assert fold(events, state) == state


@pytest.mark.parametrize(
    ("earlier", "later"),
    list(combinations(RULES, 2)),
    ids=lambda rule: rule[0].replace(" ", "_"),
)
def test_the_earlier_of_two_broken_rules_answers(earlier: Rule, later: Rule) -> None:
    case = Case()
    later[1](case)
    earlier[1](case)
    _, _, events = answer(case)
    text = RENUMBERED.get((earlier[0], later[0]), earlier[2])
    assert [getattr(event, "error", None) for event in events] == [text]


SECRET = "hunter2"


@pytest.mark.parametrize("rule", [None, *RULES], ids=lambda rule: rule[0] if rule else "accepted")
def test_no_value_of_the_environment_is_in_an_event(rule: Rule | None) -> None:
    case = Case()
    if rule is not None:
        rule[1](case)
    if case.process is not None:
        case.in_process(env=[f"PASSWORD={SECRET}", *case.process["env"], f"TOKEN={SECRET}"])
    _, _, events = answer(case)
    assert events
    for event in events:
        _, data = encode_event(event)
        assert SECRET.encode() not in data


def test_the_directories_of_path_are_in_the_intent_because_an_error_text_names_them() -> None:
    case = Case()
    case.in_process(env=[f"PASSWORD={SECRET}", "PATH=/opt/bin:/bin"])
    _, _, (event,) = answer(case)
    assert isinstance(event, e.ContainerStartAccepted)
    assert event.intent.search_path == ("/opt/bin", "/bin")
