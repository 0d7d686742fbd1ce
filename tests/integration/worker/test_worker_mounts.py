"""File trees by descriptor: what a container sees, where its writes go, what cannot be reached."""

import contextlib
import errno
import io
import os
import shutil
import subprocess
import tarfile

import pytest

from manager.domain.payload import LayerPlan, MountPlan
from manager.kernel.mount import reopen_readonly
from manager.schema import worker as w
from manager.urpc.fds import OwnedFd

pytestmark = pytest.mark.runtime


@pytest.fixture
def rootfs(busybox_rootfs, tmp_path):
    """A root filesystem of the test's own."""
    root = tmp_path / "rootfs"
    shutil.copytree(busybox_rootfs, root, symlinks=True)
    return root


@pytest.fixture
def filestore(tmp_path):
    store = tmp_path / "store"
    store.mkdir()
    return store


def shell(make_spec, script, *, readonly=False, mounts=()):
    root = {"path": "/nowhere", "readonly": readonly}
    return make_spec(["sh", "-c", script], root=root, mounts=list(mounts))


def bind(destination, *options):
    return {"destination": destination, "type": "bind", "source": "/x", "options": list(options)}


def snapshot(directory):
    return sorted(
        (str(path.relative_to(directory)), path.lstat().st_mode, path.lstat().st_mtime_ns)
        for path in directory.rglob("*")
    )


def test_read_only_root(worker, engine, make_spec, rootfs):
    before = snapshot(rootfs)
    status, output = worker.run(
        engine, shell(make_spec, "echo x > /etc/new", readonly=True), rootfs
    )
    assert status != 0
    assert "Read-only" in output
    assert snapshot(rootfs) == before


def test_writable_root_writes_into_the_donated_directory(worker, engine, make_spec, rootfs):
    status, _ = worker.run(engine, shell(make_spec, "echo x > /etc/new"), rootfs)
    assert status == 0
    assert (rootfs / "etc/new").read_text() == "x\n"


def test_missing_mount_points_of_a_read_only_root(
    worker, engine, make_spec, rootfs, tree, tmp_path
):
    for name in ("proc", "sys", "dev"):
        (rootfs / name).rmdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "data/file").write_text("content")
    before = snapshot(rootfs)
    mount = MountPlan(
        destination="/srv/deep/data", layer=LayerPlan(lower="lisafs", lower_fd=4, readonly=True)
    )
    spec = shell(
        make_spec,
        "cat /srv/deep/data/file; ls /proc/self/cmdline; ls -d /dev/null",
        readonly=True,
        mounts=[bind("/srv/deep/data")],
    )
    mounts = [(mount, [tree(tmp_path / "data")])]
    status, output = worker.run(engine, spec, rootfs, mounts=mounts)
    assert (status, output) == (0, "content/proc/self/cmdline\n/dev/null\n")
    assert snapshot(rootfs) == before


def test_memory_upper_takes_the_writes(worker, engine, make_spec, rootfs):
    before = snapshot(rootfs)
    (rootfs / "etc").chmod(0o751)
    before = snapshot(rootfs)
    script = "echo x > /etc/new; rm /etc/passwd; ls /etc; stat -c %a /etc"
    status, output = worker.run(
        engine,
        shell(make_spec, script),
        rootfs,
        root_plan=lambda fd: LayerPlan(lower="lisafs", lower_fd=fd, upper="memory", size="8m"),
    )
    assert (status, output) == (0, "new\n751\n")
    assert snapshot(rootfs) == before


def test_memory_upper_is_bounded(worker, engine, make_spec, rootfs):
    script = "busybox dd if=/dev/zero of=/big bs=65536 count=100"
    status, output = worker.run(
        engine,
        shell(make_spec, script),
        rootfs,
        root_plan=lambda fd: LayerPlan(lower="lisafs", lower_fd=fd, upper="memory", size="1m"),
    )
    assert status != 0
    assert "No space left" in output


@pytest.mark.parametrize("upper", ["self", "anon"])
def test_filestore_outlives_the_container(
    worker, engine, make_spec, rootfs, filestore, tree, upper
):
    before = snapshot(rootfs)

    def root_plan(fd):
        return LayerPlan(lower="lisafs", lower_fd=fd, upper=upper, filestore_fd=4)

    spec = shell(make_spec, "echo once >> /etc/new; cat /etc/new")
    for expected in ("once\n", "once\nonce\n"):
        status, output = worker.run(
            engine, spec, rootfs, root_plan=root_plan, extra=[tree(filestore)]
        )
        assert (status, output) == (0, expected)
    assert (filestore / "upper/etc/new").read_text() == "once\nonce\n"
    assert snapshot(rootfs) == before


@pytest.fixture
def image(busybox_rootfs, tmp_path):
    program = shutil.which("mkfs.erofs")
    if program is None:
        pytest.skip("mkfs.erofs is not installed: apt-get install erofs-utils")
    path = tmp_path / "rootfs.erofs"
    subprocess.run([program, str(path), str(busybox_rootfs)], check=True, capture_output=True)
    return path


def reopened(path):
    """An image as the manager sends it."""
    with OwnedFd(os.open(path, os.O_RDONLY)) as donated:
        return reopen_readonly(donated.number)


@pytest.mark.parametrize("upper", ["none", "memory"])
def test_erofs_root(worker, engine, make_spec, image, upper):
    status, output = worker.run(
        engine,
        shell(make_spec, "ls /bin/busybox; echo x > /etc/new && ls /etc/new"),
        reopened(image),
        root_plan=lambda fd: LayerPlan(lower="erofs", lower_fd=fd, upper=upper),
    )
    assert output.startswith("/bin/busybox\n")
    assert (status == 0) == (upper == "memory")


def test_erofs_that_is_none(worker, make_spec, tmp_path):
    (tmp_path / "image").write_bytes(bytes(8192))
    failed = worker.fail(
        "crun",
        shell(make_spec, "true"),
        OwnedFd(os.open(tmp_path / "image", os.O_RDONLY)),
        root_plan=lambda fd: LayerPlan(lower="erofs", lower_fd=fd),
    )
    assert failed.stage == "mounts"
    assert "erofs" in failed.reason


def test_binds_read_write_read_only_file_and_tmpfs(
    worker, engine, make_spec, rootfs, tree, tmp_path
):
    for name in ("rw", "ro"):
        (tmp_path / name).mkdir()
    (tmp_path / "file").write_text("old\n")
    before = snapshot(rootfs)
    plans = [
        MountPlan(destination="/m/rw", layer=LayerPlan(lower="lisafs", lower_fd=4)),
        MountPlan(
            destination="/m/ro", layer=LayerPlan(lower="lisafs", lower_fd=5), options=("ro",)
        ),
        MountPlan(destination="/etc/file", layer=LayerPlan(lower="lisafs", lower_fd=6)),
        MountPlan(destination="/m/tmp", layer=LayerPlan(lower="none", upper="memory", size="64k")),
    ]
    fds = [[tree(tmp_path / "rw")], [tree(tmp_path / "ro")], [tree(tmp_path / "file")], []]
    script = (
        "echo a > /m/rw/a; echo b > /m/ro/b; cat /etc/file; echo new > /etc/file;"
        "echo t > /m/tmp/t && cat /m/tmp/t; stat -c %a /m/tmp"
    )
    spec = shell(
        make_spec,
        script,
        readonly=True,
        mounts=[
            bind("/m/rw", "rbind"),
            bind("/m/ro", "bind", "ro"),
            bind("/etc/file", "bind"),
            bind("/m/tmp", "bind"),
        ],
    )
    status, output = worker.run(engine, spec, rootfs, mounts=list(zip(plans, fds, strict=True)))
    assert status == 0
    assert "/m/ro/b: Read-only file system" in output
    assert output.splitlines()[-3:] == ["old", "t", "1777"]
    assert (tmp_path / "rw/a").read_text() == "a\n"
    assert (tmp_path / "file").read_text() == "new\n"
    assert snapshot(rootfs) == before


def test_bind_beneath_a_filesystem_of_the_engine(worker, engine, make_spec, rootfs, tree, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/file").write_text("found\n")
    plan = MountPlan(destination="/tmp/in/data", layer=LayerPlan(lower="lisafs", lower_fd=4))
    mounts = [
        {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["size=1m"]},
        bind("/tmp/in/data", "rbind"),
    ]
    spec = shell(make_spec, "ls /tmp; cat /tmp/in/data/file", mounts=mounts, readonly=True)
    status, output = worker.run(engine, spec, rootfs, mounts=[(plan, [tree(tmp_path / "data")])])
    assert (status, output) == (0, "in\nfound\n")


def test_mount_with_an_upper_layer(worker, engine, make_spec, rootfs, tree, filestore, tmp_path):
    (tmp_path / "lower").mkdir()
    (tmp_path / "lower/old").write_text("old")
    layer = LayerPlan(lower="lisafs", lower_fd=4, upper="self", filestore_fd=5)
    plan = MountPlan(destination="/data", layer=layer)
    spec = shell(make_spec, "echo new > /data/new; ls /data", mounts=[bind("/data")], readonly=True)
    fds = [tree(tmp_path / "lower"), tree(filestore)]
    status, output = worker.run(engine, spec, rootfs, mounts=[(plan, fds)])
    assert (status, output) == (0, "new\nold\n")
    assert os.listdir(tmp_path / "lower") == ["old"]
    assert (filestore / "upper/new").read_text() == "new\n"


def test_donated_dev_directory(worker, engine, make_spec, rootfs, tree, tmp_path):
    dev = tmp_path / "dev"
    dev.mkdir()
    os.mknod(dev / "null", 0o20666, os.makedev(1, 3))
    (dev / "mark").write_text("ours\n")
    (dev / "pts").mkdir()
    spec = shell(make_spec, "cat /dev/mark; ls /dev; echo x > /dev/null; stat -c %t:%T /dev/null")
    status, output = worker.run(engine, spec, rootfs, extra=[tree(dev)], plan={"dev_fd": 4})
    assert status == 0, output
    assert output.splitlines()[0] == "ours"
    if engine != "runsc":
        assert "zero" not in output
        assert output.splitlines()[-1] == "1:3"


def tar_of(*members):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, kind, content in members:
            info = tarfile.TarInfo(name)
            info.type = kind
            if kind == tarfile.REGTYPE:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
                continue
            if kind == tarfile.DIRTYPE:
                info.mode = 0o755
                if content == "opaque":
                    info.pax_headers = {"SCHILY.xattr.trusted.overlay.opaque": "y"}
            elif kind == tarfile.CHRTYPE:
                info.devmajor, info.devminor = content
            else:
                info.linkname = content
            archive.addfile(info)
    return buffer.getvalue()


def tar_fd(content):
    fd = OwnedFd(os.memfd_create("tar"))
    os.write(fd.number, content)
    os.lseek(fd.number, 0, os.SEEK_SET)
    return fd


def test_upper_tar_is_unpacked_before_the_start(worker, engine, make_spec, rootfs, filestore, tree):
    (rootfs / "opaque").mkdir()
    (rootfs / "opaque/hidden").touch()
    content = tar_of(
        ("etc", tarfile.DIRTYPE, ""),
        ("etc/added", tarfile.REGTYPE, b"from the archive\n"),
        ("etc/passwd", tarfile.CHRTYPE, (0, 0)),
        ("opaque", tarfile.DIRTYPE, "opaque"),
        ("opaque/shown", tarfile.REGTYPE, b""),
        ("link", tarfile.SYMTYPE, "/etc/added"),
    )
    spec = shell(make_spec, "cat /link; ls /etc /opaque")
    status, output = worker.run(
        engine,
        spec,
        rootfs,
        root_plan=lambda fd: LayerPlan(lower="lisafs", lower_fd=fd, upper="self", filestore_fd=4),
        extra=[tree(filestore), tar_fd(content)],
        plan={"upper_tar_fd": 5},
    )
    assert (status, output) == (0, "from the archive\n/etc:\nadded\n\n/opaque:\nshown\n")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (tar_of(("/etc/x", tarfile.REGTYPE, b"")), "absolute name"),
        (tar_of(("a/../../x", tarfile.REGTYPE, b"")), "'..' in its name"),
        (tar_of(("x", tarfile.SYMTYPE, "../x")), "symbolic link target leaves the tree"),
        (tar_of(("x", tarfile.LNKTYPE, "/etc/shadow")), "absolute hard link target"),
        (tar_of(("sda", tarfile.CHRTYPE, (1, 3))), "a device"),
        (b"no archive at all" * 100, "invalid header"),
    ],
)
def test_upper_tar_that_is_refused(worker, make_spec, rootfs, content, reason):
    failed = worker.fail(
        "crun",
        shell(make_spec, "true"),
        rootfs,
        root_plan=lambda fd: LayerPlan(lower="lisafs", lower_fd=fd, upper="memory"),
        extra=[tar_fd(content)],
        plan={"upper_tar_fd": 4},
    )
    assert failed.stage == "tar"
    assert reason in failed.reason


def test_upper_tar_without_an_upper(worker, make_spec, rootfs):
    failed = worker.fail(
        "crun",
        shell(make_spec, "true"),
        rootfs,
        extra=[tar_fd(tar_of())],
        plan={"upper_tar_fd": 4},
    )
    assert (failed.stage, "no upper layer" in failed.reason) == ("tar", True)


def test_what_becomes_of_the_donors_path_does_not_matter(
    worker, engine, make_spec, rootfs, tree, tmp_path
):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/mark").write_text("real\n")
    (rootfs / "mark").write_text("real\n")
    trees = [tree(rootfs), tree(tmp_path / "data")]
    for path in (rootfs, tmp_path / "data"):
        path.rename(path.with_name(path.name + "-away"))
        path.mkdir()
        (path / "mark").write_text("decoy\n")
    plan = MountPlan(destination="/data", layer=LayerPlan(lower="lisafs", lower_fd=4))
    spec = shell(make_spec, "cat /mark /data/mark", mounts=[bind("/data")])
    status, output = worker.run(engine, spec, trees[0], mounts=[(plan, [trees[1]])])
    assert (status, output) == (0, "real\nreal\n")


@pytest.mark.parametrize(
    "attack",
    [(where, upper) for where in ("proc", "dev", "data") for upper in ("none", "memory")],
)
def test_a_symlink_in_the_root_wins_nowhere(
    worker, engine, make_spec, rootfs, tree, tmp_path, attack
):
    where, upper = attack
    for target in ("/oldroot", "/newroot", ""):
        (tmp_path / "victim").mkdir(exist_ok=True)
        link = rootfs / where
        with contextlib.suppress(OSError):
            link.rmdir()
        link.unlink(missing_ok=True)
        link.symlink_to(f"{target}{tmp_path}/victim")
        (tmp_path / "source").mkdir(exist_ok=True)
        (tmp_path / "source/mark").write_text("mounted\n")
        plan = MountPlan(destination="/data", layer=LayerPlan(lower="lisafs", lower_fd=4))
        spec = shell(
            make_spec, "cat /data/mark; ls /proc/1/comm", mounts=[bind("/data")], readonly=True
        )
        status, output = worker.run(
            engine,
            spec,
            rootfs,
            root_plan=lambda fd: LayerPlan(lower="lisafs", lower_fd=fd, upper=upper),
            mounts=[(plan, [tree(tmp_path / "source")])],
        )
        assert (status, output) == (0, "mounted\n/proc/1/comm\n")
        assert os.listdir(tmp_path / "victim") == []


def test_a_symlink_in_a_writable_root_is_named(worker, make_spec, rootfs, tree, tmp_path):
    (rootfs / "data").symlink_to(tmp_path)
    plan = MountPlan(destination="/data/x", layer=LayerPlan(lower="lisafs", lower_fd=4))
    (tmp_path / "source").mkdir()
    failed = worker.fail(
        "crun",
        shell(make_spec, "true", mounts=[bind("/data/x")]),
        rootfs,
        mounts=[(plan, [tree(tmp_path / "source")])],
    )
    assert (failed.stage, failed.errno) == ("mounts", errno.ELOOP)
    assert "/data/x" in failed.reason
    assert not (tmp_path / "x").exists()


def test_a_symlink_in_a_donated_upper_is_named(
    worker, make_spec, rootfs, filestore, tree, tmp_path
):
    (filestore / "upper").mkdir()
    (filestore / "upper/data").symlink_to(tmp_path)
    (tmp_path / "source").mkdir()
    plan = MountPlan(destination="/data", layer=LayerPlan(lower="lisafs", lower_fd=5))
    failed = worker.fail(
        "crun",
        shell(make_spec, "true", mounts=[bind("/data")]),
        rootfs,
        root_plan=lambda fd: LayerPlan(lower="lisafs", lower_fd=fd, upper="self", filestore_fd=4),
        mounts=[(plan, [tree(filestore), tree(tmp_path / "source")])],
    )
    assert (failed.stage, failed.errno) == ("mounts", errno.ELOOP)
    assert "/data" in failed.reason


def test_a_filestore_whose_upper_is_a_symlink(worker, make_spec, rootfs, filestore, tree, tmp_path):
    (filestore / "upper").symlink_to(tmp_path)
    failed = worker.fail(
        "crun",
        shell(make_spec, "true"),
        rootfs,
        root_plan=lambda fd: LayerPlan(lower="lisafs", lower_fd=fd, upper="self", filestore_fd=4),
        extra=[tree(filestore)],
    )
    assert (failed.stage, failed.errno) == ("mounts", errno.ELOOP)


def test_a_path_of_the_host_in_the_spec_is_refused(worker, make_spec, rootfs):
    for mount in (
        {"destination": "/x", "type": "overlay", "source": "overlay", "options": ["lowerdir=/"]},
        {"destination": "/x", "type": "ext4", "source": "/dev/vda"},
        {"destination": "/x", "type": "tmpfs", "options": ["bind"]},
    ):
        failed = worker.fail("crun", shell(make_spec, "true", mounts=[mount]), rootfs)
        assert (failed.stage, "/x" in failed.reason) == ("mounts", True)


def test_masked_and_read_only_paths(worker, engine, make_spec, rootfs):
    if engine == "runsc":
        pytest.skip("gVisor's /proc is its own")
    linux = {"maskedPaths": ["/proc/version", "/etc", "/nope"], "readonlyPaths": ["/proc/sys"]}
    script = "wc -c < /proc/version; ls /etc; echo 1 > /proc/sys/vm/swappiness; ls /sys/class/net"
    spec = make_spec(["sh", "-c", script], linux=linux)
    status, output = worker.run(engine, spec, rootfs)
    assert status == 0
    assert output.splitlines()[0] == "0"
    assert "Read-only file system" in output
    assert output.splitlines()[-1] == "lo"
    assert len(output.splitlines()) == 3


def test_128_descriptors(worker, engine, make_spec, rootfs, tree, tmp_path):
    plans = []
    for index in range(124):
        source = tmp_path / f"source-{index}"
        source.mkdir()
        (source / "mark").write_text(f"{index} ")
        layer = LayerPlan(lower="lisafs", lower_fd=4 + index)
        plan = MountPlan(destination=f"/m/{index}", layer=layer)
        plans.append((plan, [tree(source)]))
    mounts = [bind(f"/m/{index}") for index in range(124)]
    spec = shell(make_spec, "cat /m/*/mark | wc -w", mounts=mounts, readonly=True)
    launched = worker.launch(engine, spec, rootfs, mounts=plans)
    worker.expect(w.Started, launched)
    assert worker.expect(w.Exited, launched).status == 0
    assert launched.stdio.read_all().split() == ["124"]
