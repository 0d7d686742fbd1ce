"""What engines are given: config.json, and bubblewrap's command line."""

from pathlib import Path

import msgspec
import pytest

from manager.domain.payload import LaunchPlan, LayerPlan, MountPlan
from manager.domain.spec import Process, Rlimit, parse_spec
from manager.worker.bwrap_args import later_mounts, sandbox_arguments
from manager.worker.criu import Criu
from manager.worker.engine import Host, Job
from manager.worker.errors import LaunchFailed
from manager.worker.oci_config import Changes, build_config
from manager.worker.phases import Phases
from manager.worker.resources import Limits
from manager.worker.root_plan import plan_root
from manager.worker.stage import LaunchStage

STAGE = Path("/stage/id")

BODY = {
    "ociVersion": "1.0.2",
    "process": {
        "terminal": True,
        "args": ["true"],
        "cwd": "/work",
        "env": ["A=1", "SECRET=x=y"],
        "capabilities": {"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"]},
    },
    "root": {"path": "/etc/shadow", "readonly": True},
    "hostname": "box",
    "hooks": {"prestart": [{"path": "/bin/sh"}]},
    "annotations": {"run.oci.handler": "krun"},
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/tmp", "type": "tmpfs", "options": ["size=1m", "mode=700", "ro"]},
        {"destination": "/data", "type": "bind", "source": "/host/data"},
        {"destination": "/tmp/x", "type": "bind", "source": "/host/x", "options": ["ro"]},
    ],
    "linux": {
        "cgroupsPath": "/somebody/elses",
        "resources": {"pids": {"limit": 3}},
        "namespaces": [
            {"type": "network", "path": "/proc/1/ns/net"},
            {"type": "cgroup", "path": "/proc/1/ns/cgroup"},
        ],
        "seccomp": {"defaultAction": "SCMP_ACT_ALLOW"},
    },
}
PLAN = LaunchPlan(
    stdio=(0, 1, 2),
    root=LayerPlan(lower="lisafs", lower_fd=3),
    mounts=(
        MountPlan(destination="/data", layer=LayerPlan(lower="lisafs", lower_fd=4)),
        MountPlan(
            destination="/tmp/x", layer=LayerPlan(lower="lisafs", lower_fd=5), options=("ro",)
        ),
    ),
)


def root_plan(body=BODY, plan=PLAN):
    return plan_root(parse_spec(msgspec.json.encode(body)), plan)


def config(body=BODY, **changes):
    defaults = {
        "root": STAGE / "root",
        "parts": STAGE / "parts",
        "namespaces": {},
        "cgroups_path": "/sandtrail/id",
        "readonly": True,
        "rlimits": (Rlimit(type="RLIMIT_NOFILE", soft=1, hard=2),),
    }
    return build_config(body, root_plan(body), Changes(**(defaults | changes)))


def test_what_is_ours_replaces_what_was_given():
    found = config()
    assert found["root"] == {"path": "/stage/id/root", "readonly": True}
    assert found["process"] == BODY["process"] | {
        "terminal": False,
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1, "hard": 2}],
    }
    assert found["linux"]["cgroupsPath"] == "/sandtrail/id"
    assert found["linux"]["seccomp"] == BODY["linux"]["seccomp"]
    assert not {"hooks", "annotations"} & found.keys()
    assert config(run_hooks=True)["hooks"] == BODY["hooks"]
    assert "annotations" not in config(run_hooks=True)
    assert "resources" not in found["linux"]
    assert "resources" in config(keep_resources=True)["linux"]
    assert BODY["root"]["path"] == "/etc/shadow"


def test_attached_trees_are_no_mounts_and_staged_ones_come_from_the_stage():
    mounts = {each["destination"]: each for each in config()["mounts"]}
    assert "/data" not in mounts
    assert mounts["/tmp/x"]["source"].startswith("/stage/id/parts/")
    assert mounts["/tmp/x"]["options"] == ["rbind", "ro"]
    assert "/host" not in str(mounts)


def test_namespaces_are_new_or_the_sandboxs_never_the_clients():
    kinds = [ns["type"] for ns in config()["linux"]["namespaces"]]
    assert sorted(kinds) == ["cgroup", "ipc", "mount", "network", "pid", "uts"]
    assert "/proc/1" not in str(config())
    joined = config(namespaces={"net": "/proc/7/fd/8", "uts": "/proc/7/fd/9"})
    found = {ns["type"]: ns.get("path") for ns in joined["linux"]["namespaces"]}
    assert (found["network"], found["uts"], found["pid"]) == ("/proc/7/fd/8", "/proc/7/fd/9", None)


def test_a_subcontainer_does_not_rename_the_sandbox():
    assert config()["hostname"] == "box"
    assert "hostname" not in config(namespaces={"uts": "/proc/7/fd/9"})


def job(body=BODY, plan=PLAN, namespaces=None, terminal=False):
    return Job(
        engine_id="id",
        spec=parse_spec(msgspec.json.encode(body)),
        body=body,
        root_plan=root_plan(body, plan),
        stage=LaunchStage(STAGE),
        stdio=(0, 1, 2),
        terminal=terminal,
        namespaces=namespaces or {},
        cgroup=None,
        limits=Limits(),
        phases=Phases(),
    )


def arguments(*args, pid_namespace_fd=None, **kwargs):
    return sandbox_arguments(job(*args, **kwargs), pid_namespace_fd=pid_namespace_fd)


def has(found, *sequence):
    spans = range(len(found) - len(sequence) + 1)
    return any(tuple(found[i : i + len(sequence)]) == sequence for i in spans)


def test_bwrap_of_a_root_container():
    found = arguments()
    for option in ("--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"):
        assert option in found
    assert "--as-pid-1" in found
    assert "--new-session" in found
    assert has(found, "--bind", "/stage/id/root", "/")
    assert has(found, "--hostname", "box")
    assert has(found, "--chdir", "/work")
    assert has(found, "--cap-add", "CAP_KILL")
    assert has(found, "--clearenv", "--setenv", "A", "1", "--setenv", "SECRET", "x=y")
    assert "--cap-drop" not in found


def test_bwraps_mounts_in_order():
    found = arguments()
    assert has(found, "--perms", "0700", "--size", "1048576", "--tmpfs", "/tmp")
    assert has(found, "--remount-ro", "/tmp")
    assert has(found, "--dev", "/dev")
    assert found.index("/tmp") < found.index("/tmp/x")
    assert not has(found, "/data")
    assert [mount.destination for mount in later_mounts(root_plan())] == ["/sys"]


def test_bwrap_of_a_subcontainer():
    joined = {"net": 7, "ipc": 8, "uts": 9}
    found = arguments(namespaces=joined)
    assert "--unshare-pid" in found
    assert not {"--unshare-net", "--unshare-ipc", "--unshare-uts", "--hostname"} & set(found)
    found = arguments(namespaces=joined | {"pid": 10}, pid_namespace_fd=10)
    assert has(found, "--pidns", "10")
    assert not {"--unshare-pid", "--as-pid-1"} & set(found)


def test_bwrap_with_a_terminal_keeps_its_session():
    assert "--new-session" not in arguments(terminal=True)


def test_bwrap_and_a_donated_dev():
    plan = msgspec.structs.replace(PLAN, dev_fd=6)
    found = arguments(plan=plan)
    assert has(found, "--dev-bind", "/stage/id/parts/dev", "/dev")
    assert "--dev" not in found


@pytest.mark.parametrize("size", ["1.5m", "50%", "many"])
def test_a_size_that_bwrap_cannot_express(size):
    mounts = [{"destination": "/tmp", "type": "tmpfs", "options": [f"size={size}"]}]
    body = BODY | {"mounts": mounts}
    with pytest.raises(LaunchFailed, match="size"):
        arguments(body, msgspec.structs.replace(PLAN, mounts=()))


def test_open_files_are_limited_as_they_were_for_the_worker():
    host = Host(
        processes=None,
        nothing=None,
        exit_status_by_pidfd=True,
        lacks=frozenset(),
        criu=Criu(),
        open_files=(1024, 4096),
    )
    given = Rlimit(type="RLIMIT_NOFILE", soft=5, hard=6)
    cpu = Rlimit(type="RLIMIT_CPU", soft=5, hard=6)
    usual = Rlimit(type="RLIMIT_NOFILE", soft=1024, hard=4096)
    assert host.limits_for(Process(rlimits=(given, cpu))) == (given, cpu)
    assert host.limits_for(Process(rlimits=(cpu,))) == (cpu, usual)
    assert host.limits_for(Process()) == (usual,)
