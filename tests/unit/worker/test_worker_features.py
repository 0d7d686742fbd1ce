"""What a spec asks of an engine."""

import pytest

from manager.domain.features import FEATURES, features_needed
from manager.domain.payload import LaunchPlan, LayerPlan
from manager.domain.spec import parse_spec_object
from manager.worker.bwrap_lacks import LACKS
from manager.worker.oci import CRUN, RUNC
from manager.worker.runsc import RUNSC

PLAIN = LaunchPlan(stdio=(0, 1, 2), root=LayerPlan(lower="lisafs", lower_fd=3))
CAPABILITIES = {"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"]}


def needed(spec, plan=PLAIN, *, joins=False):
    return features_needed(parse_spec_object(spec), plan, joins_pid_namespace=joins)


def test_a_plain_process_needs_nothing():
    process = {"args": ["true"], "cwd": "/", "env": ["A=b"], "noNewPrivileges": True}
    process["capabilities"] = CAPABILITIES
    assert needed({"process": process, "hostname": "x", "linux": {}}) == ()


@pytest.mark.parametrize(
    ("spec", "feature"),
    [
        ({"process": {"user": {"uid": 1}}}, "non-root-user"),
        ({"process": {"user": {"additionalGids": [5]}}}, "non-root-user"),
        ({"process": {"rlimits": [{"type": "RLIMIT_CPU"}]}}, "rlimits"),
        ({"process": {"apparmorProfile": "x"}}, "apparmor"),
        ({"process": {"selinuxLabel": "x"}}, "selinux"),
        ({"process": {"oomScoreAdj": 5}}, "oom-score-adj"),
        (
            {"process": {"capabilities": {**CAPABILITIES, "effective": []}}},
            "capability-sets",
        ),
        (
            {"process": {"capabilities": dict.fromkeys(CAPABILITIES, ("CAP_MKNOD",))}},
            "mknod",
        ),
        ({"domainname": "x"}, "domainname"),
        ({"mounts": [{"destination": "/c", "type": "cgroup"}]}, "cgroup-mount"),
        ({"mounts": [{"destination": "/c", "type": "cgroup2"}]}, "writable-cgroup-mount"),
        (
            {"mounts": [{"destination": "/c", "type": "cgroup", "options": ["ro", "rw"]}]},
            "writable-cgroup-mount",
        ),
        ({"mounts": [{"destination": "/q", "type": "mqueue"}]}, "mqueue"),
        ({"mounts": [{"destination": "/q", "options": ["ridmap"]}]}, "idmapped-mounts"),
        ({"linux": {"seccomp": {"defaultAction": "x"}}}, "seccomp"),
        ({"linux": {"devices": [{"path": "/dev/fuse"}]}}, "devices"),
        ({"linux": {"sysctl": {"a": "b"}}}, "sysctl"),
        ({"linux": {"maskedPaths": ["/x"]}}, "masked-paths"),
        ({"linux": {"readonlyPaths": ["/x"]}}, "readonly-paths"),
        ({"linux": {"rootfsPropagation": "shared"}}, "rootfs-propagation"),
        ({"linux": {"mountLabel": "x"}}, "mount-label"),
        ({"linux": {"intelRdt": {"closID": "x"}}}, "intel-rdt"),
        ({"linux": {"personality": {"domain": "LINUX32"}}}, "personality"),
        ({"linux": {"uidMappings": [{"containerID": 0}]}}, "user-namespace"),
        ({"linux": {"namespaces": [{"type": "user"}]}}, "user-namespace"),
        ({"linux": {"namespaces": [{"type": "time"}]}}, "time-namespace"),
        ({"linux": {"resources": {"pids": {"limit": 1}}}}, "resources"),
        ({"linux": {"resources": {"blockIO": {"weight": 1}}}}, "resources-beyond-memory-pids-cpu"),
        ({"linux": {"resources": {"cpu": {"cpus": "0"}}}}, "resources-beyond-memory-pids-cpu"),
    ],
)
def test_each_feature(spec, feature):
    assert feature in needed(spec)
    assert feature in FEATURES


def test_a_cgroup_mount_to_look_at():
    mount = {"destination": "/c", "type": "cgroup", "options": ["rw", "nosuid", "ro"]}
    assert needed({"mounts": [mount]}) == ("cgroup-mount",)


def test_what_the_default_device_rules_ask_for_is_nothing():
    devices = [{"allow": False, "access": "rwm"}]
    assert needed({"linux": {"resources": {"devices": devices, "memory": None}}}) == ()


def test_features_of_the_plan():
    plan = LaunchPlan(stdio=None, root=LayerPlan(lower="erofs", lower_fd=0), dev_fd=1)
    assert needed({}, plan, joins=True) == (
        "dev-directory",
        "erofs",
        "pid-namespace-join",
        "terminal",
    )


@pytest.mark.parametrize("lacks", [LACKS, CRUN.lacks, RUNC.lacks, RUNSC.lacks])
def test_engines_lack_only_what_has_a_name(lacks):
    assert lacks <= set(FEATURES)
