"""Who mounts what, and where mount points are needed."""

import pytest

from manager.domain.payload import LaunchPlan, LayerPlan, MountPlan
from manager.domain.spec import Mount, Spec
from manager.worker.errors import LaunchFailed
from manager.worker.root_plan import EngineMount, TreeMount, lies_beneath, plan_root

ROOT = LayerPlan(lower="lisafs", lower_fd=3)


def spec(*mounts):
    return Spec(mounts=tuple(mounts))


def bind(destination):
    return Mount(destination=destination, type="bind", source="/x")


def engine(destination, kind="tmpfs"):
    return Mount(destination=destination, type=kind)


def donated(destination, fd=4):
    return MountPlan(destination=destination, layer=LayerPlan(lower="lisafs", lower_fd=fd))


def plan(*mounts, **more):
    return LaunchPlan(stdio=(0, 1, 2), root=ROOT, mounts=mounts, **more)


def destinations(entries):
    return [e.mount.destination if isinstance(e, EngineMount) else e.destination for e in entries]


def test_what_every_container_gets():
    found = plan_root(spec(), plan())
    assert destinations(found.entries) == ["/proc", "/sys", "/dev", "/dev/pts", "/dev/shm"]
    assert [p.destination for p in found.mount_points] == ["/proc", "/sys", "/dev"]
    assert found.attached == found.staged == ()


def test_the_specs_own_filesystems_replace_the_usual_ones():
    given = (engine("/proc", "proc"), engine("/dev"), engine("/sys", "sysfs"))
    found = plan_root(spec(*given), plan())
    assert destinations(found.entries) == ["/proc", "/dev", "/sys"]


@pytest.mark.parametrize(
    ("mounts", "staged"),
    [
        ([bind("/data")], False),
        ([engine("/tmp"), bind("/tmp/data")], True),
        ([engine("/tmp"), bind("/tmpfile")], False),
        ([bind("/tmp/data"), engine("/tmp")], False),
        ([bind("/dev/thing")], True),
        ([engine("/a"), bind("/a/b"), bind("/a/b/c")], True),
    ],
)
def test_a_tree_beneath_a_filesystem_of_the_engine_is_staged(mounts, staged):
    donations = [donated(m.destination) for m in mounts if m.type == "bind"]
    found = plan_root(spec(*mounts), plan(*donations))
    trees = [entry for entry in found.entries if isinstance(entry, TreeMount)]
    assert [tree.staged for tree in trees] == [staged] * len(trees)
    assert len({tree.place for tree in trees}) == len(trees)


def test_mount_points_beneath_other_mounts_are_not_the_roots():
    mounts = (engine("/a"), bind("/a/b"), bind("/c"), bind("/c/d"))
    donations = [donated(each) for each in ("/a/b", "/c", "/c/d")]
    found = plan_root(spec(*mounts), plan(*donations))
    kinds = {point.destination: point.kind for point in found.mount_points}
    assert {"/a": "directory", "/c": "like-source"}.items() <= kinds.items()
    assert "/a/b" not in kinds
    assert "/c/d" not in kinds
    every = plan_root(spec(*mounts), plan(*donations), every_mount_point=True)
    assert "/a/b" in {point.destination for point in every.mount_points}


def test_a_donated_dev_is_staged_and_replaces_the_specs():
    found = plan_root(spec(engine("/dev"), engine("/dev/shm")), plan(dev_fd=4))
    (dev,) = found.staged
    assert (dev.destination, dev.devices, dev.layer.lower_fd) == ("/dev", True, 4)
    assert destinations(found.entries).count("/dev") == 1
    assert "/dev/shm" in destinations(found.engine_entries)
    assert "/dev/pts" not in destinations(found.entries)


@pytest.mark.parametrize(
    "destination", ["data", "//data", "/./data", "/x/../data", "/data/", "/../../data"]
)
def test_destinations_are_made_normal(destination):
    found = plan_root(spec(bind(destination)), plan(donated(destination)))
    assert destinations(found.attached) == ["/data"]


@pytest.mark.parametrize(
    ("mounts", "donations", "reason"),
    [
        ([bind("/")], [donated("/")], "is the root"),
        ([bind("/a/..")], [donated("/")], "is the root"),
        ([bind("/a")], [], "no descriptor was planned for mount /a"),
        ([bind("/a")], [donated("/b")], "no descriptor was planned for mount /a"),
        ([], [donated("/b")], "no mount of the spec has destination /b"),
        ([engine("/x", "overlay")], [], "'overlay' without a donated descriptor"),
        ([engine("/x", "ext4")], [], "'ext4' without a donated descriptor"),
        ([engine("/x", "bind")], [], "'bind' without a donated descriptor"),
        ([Mount(destination="/x", type="tmpfs", options=("rbind",))], [], "without a donated"),
    ],
)
def test_plans_that_do_not_fit(mounts, donations, reason):
    with pytest.raises(LaunchFailed, match=reason) as caught:
        plan_root(spec(*mounts), plan(*donations))
    assert caught.value.stage == "mounts"


def test_readonly_comes_from_either_side():
    read_only = LaunchPlan(
        stdio=None, root=LayerPlan(lower="lisafs", lower_fd=0, readonly=True), mounts=()
    )
    assert plan_root(spec(), read_only).readonly
    assert not plan_root(spec(), plan()).readonly


@pytest.mark.parametrize(
    ("path", "places", "expected"),
    [
        ("/a/b", ["/a"], True),
        ("/a", ["/a"], True),
        ("/ab", ["/a"], False),
        ("/a", ["/a/b"], False),
        ("/a", [], False),
    ],
)
def test_lies_beneath(path, places, expected):
    assert lies_beneath(path, places) is expected
