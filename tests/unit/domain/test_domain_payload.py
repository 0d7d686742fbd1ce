"""Which descriptor plays which part, and which descriptors may play it."""

from itertools import product
from typing import Any

import pytest

from manager.domain import events as e
from manager.domain.decide import decide
from manager.domain.payload import LaunchPlan, LayerPlan, MountPlan
from manager.domain.payload_rules import plan_payload
from manager.domain.request import FdFact, GoferMountConf
from tests.unit.domain.builders import (
    DIRECTORY,
    FILE,
    SANDBOX,
    STDIO,
    TTY,
    WAITING,
    a_process,
    a_request,
    a_spec,
    bind,
    create,
    fd,
    history,
    start,
)

SETUP = "failed to setupFS: creating mount namespace: "
SUBMOUNTS = "failed to setupFS: mounting submounts: "
MEMORY_OVER_LISAFS = GoferMountConf(lower=1, upper=1)


def refused(**members: Any) -> str:
    """The text of the refusal of a start in a good sandbox, or ``""``."""
    spec = members.pop("spec", None) or a_spec()
    event = decide(history(*WAITING), start(spec=spec, **members))[-1]
    return event.error if isinstance(event, e.ContainerStartRejected) else ""


@pytest.mark.parametrize(
    ("terminal", "filestores", "dev", "tar"),
    list(product((False, True), (0, 1, 2), (False, True), (False, True))),
)
def test_order_with_every_flag(terminal: bool, filestores: int, dev: bool, tar: bool) -> None:
    uppers = [2, 3][:filestores] + [1] * (2 - filestores)
    files: list[FdFact] = []
    labels: list[str] = []

    def donate(label: str, fact: FdFact) -> None:
        labels.append(label)
        files.append(fact)

    if not terminal:
        for name, fact in zip(("stdin", "stdout", "stderr"), STDIO, strict=True):
            donate(name, fact)
    for number in range(filestores):
        donate(f"filestore {number}", DIRECTORY)
    if dev:
        donate("dev", DIRECTORY)
    if tar:
        donate("tar", FILE)
    donate("rootfs", DIRECTORY)
    donate("/a", FILE)
    donate("/b", DIRECTORY)
    request = a_request(
        files=files,
        num_gofer_filestore_fds=filestores,
        is_dev_io_file_present=dev,
        is_rootfs_upper_tar_file_present=tar,
        gofer_mount_confs=(
            GoferMountConf(lower=1, upper=uppers[0]),
            GoferMountConf(lower=1, upper=uppers[1]),
            GoferMountConf(lower=1, upper=0),
        ),
    )
    spec = a_spec(
        process=a_process(terminal=terminal),
        mounts=[bind("/a"), {"destination": "/proc", "type": "proc"}, bind("/b")],
    )

    plan = plan_payload(request, spec)

    assert isinstance(plan, LaunchPlan)
    found = {
        index: label
        for label, index in [
            *zip(("stdin", "stdout", "stderr"), plan.stdio or (), strict=False),
            ("filestore 0", plan.root.filestore_fd),
            ("filestore 1", plan.mounts[0].layer.filestore_fd),
            ("dev", plan.dev_fd),
            ("tar", plan.upper_tar_fd),
            ("rootfs", plan.root.lower_fd),
            ("/a", plan.mounts[0].layer.lower_fd),
            ("/b", plan.mounts[1].layer.lower_fd),
        ]
        if index is not None
    }
    assert found == dict(enumerate(labels))
    assert (plan.stdio is None) == terminal


def test_no_confs_mean_plain_trees() -> None:
    spec = a_spec(root={"path": "/", "readonly": True}, mounts=[bind("/a", "rbind", "ro")])
    plan = plan_payload(a_request(files=(*STDIO, DIRECTORY, FILE)), spec)
    assert plan == LaunchPlan(
        stdio=(0, 1, 2),
        root=LayerPlan(lower="lisafs", lower_fd=3, readonly=True),
        mounts=(
            MountPlan(
                destination="/a",
                layer=LayerPlan(lower="lisafs", lower_fd=4, readonly=True),
                options=("rbind", "ro"),
            ),
        ),
    )


@pytest.mark.parametrize(
    ("conf", "layer"),
    [
        (GoferMountConf(lower=0, upper=1), LayerPlan(lower="none", upper="memory")),
        (GoferMountConf(lower=0, upper=2), LayerPlan(lower="none", upper="self", filestore_fd=3)),
        (GoferMountConf(lower=0, upper=3), LayerPlan(lower="none", upper="anon", filestore_fd=3)),
        (GoferMountConf(lower=1, upper=0), LayerPlan(lower="lisafs", lower_fd=4)),
        (
            GoferMountConf(lower=1, upper=1, size="10M"),
            LayerPlan(lower="lisafs", lower_fd=4, upper="memory", size="10M"),
        ),
        (
            GoferMountConf(lower=1, upper=2),
            LayerPlan(lower="lisafs", lower_fd=5, upper="self", filestore_fd=3),
        ),
        (
            GoferMountConf(lower=1, upper=3),
            LayerPlan(lower="lisafs", lower_fd=5, upper="anon", filestore_fd=3),
        ),
        (GoferMountConf(lower=2, upper=0), LayerPlan(lower="erofs", lower_fd=4)),
        (
            GoferMountConf(lower=2, upper=1),
            LayerPlan(lower="erofs", lower_fd=4, upper="memory"),
        ),
        (
            GoferMountConf(lower=2, upper=2),
            LayerPlan(lower="erofs", lower_fd=5, upper="self", filestore_fd=3),
        ),
        (
            GoferMountConf(lower=2, upper=3),
            LayerPlan(lower="erofs", lower_fd=5, upper="anon", filestore_fd=3),
        ),
    ],
    ids=lambda value: value.text if isinstance(value, GoferMountConf) else "",
)
def test_all_eleven_configurations(conf: GoferMountConf, layer: LayerPlan) -> None:
    """One mount in each valid configuration, behind stdio and, if it has one, its filestore."""
    stores = 1 if layer.filestore_fd is not None else 0
    gofers = (FILE,) if layer.lower_fd is not None else ()
    files = (*STDIO, *(DIRECTORY,) * stores, DIRECTORY, *gofers)
    plan = plan_payload(
        a_request(
            files=files,
            num_gofer_filestore_fds=stores,
            gofer_mount_confs=(GoferMountConf(lower=1, upper=0), conf),
        ),
        a_spec(mounts=[bind("/a")]),
    )
    assert isinstance(plan, LaunchPlan)
    assert plan.mounts[0].layer == layer


@pytest.mark.parametrize(
    ("lower", "upper", "text"),
    [
        (0, 0, "none:none"),
        (3, 0, "3:none"),
        (-1, 1, "-1:memory"),
        (1, 4, "lisafs:4"),
        (1, -1, "lisafs:-1"),
        (2**40, 2**40, "1099511627776:1099511627776"),
    ],
)
def test_configurations_that_are_none(lower: int, upper: int, text: str) -> None:
    confs = (GoferMountConf(), GoferMountConf(lower=lower, upper=upper))
    request = a_request(files=(*STDIO, DIRECTORY, DIRECTORY), gofer_mount_confs=confs)
    error = refused(request=request, spec=a_spec(mounts=[bind("/a")]))
    assert error == f'{SUBMOUNTS}invalid gofer mount config: "{text}"'


@pytest.mark.parametrize("size", ["1", "10M", "1k", "50%", "1G", "2t", "1p", "1E", "0"])
def test_sizes(size: str) -> None:
    conf = GoferMountConf(lower=1, upper=1, size=size)
    assert refused(request=a_request(gofer_mount_confs=(conf,))) == ""


@pytest.mark.parametrize("size", ["M", "10MB", "-1", "1.5G", "٣", "10 M", "1,mode=0", "%"])
def test_sizes_that_are_none(size: str) -> None:
    conf = GoferMountConf(lower=1, upper=1, size=size)
    assert refused(request=a_request(gofer_mount_confs=(conf,))) == (
        f'{SETUP}invalid gofer mount config: "lisafs:memory:size={size}": '
        "a size is digits with one of k m g t p e % behind them"
    )


STREAM = "a pipe, a connected socket, a terminal, /dev/null or a regular file, but is "
NO_STREAM = [
    (fd("directory", "r"), "a directory"),
    (fd("directory", "path"), "an O_PATH descriptor"),
    (fd("regular", "path"), "an O_PATH descriptor"),
    (fd("symlink", "path"), "an O_PATH descriptor"),
    (fd("block-device", "rw"), "a block device"),
    (fd("character-device", "rw"), "a character device"),
    (fd("unconnected-socket", "rw"), "an unconnected socket"),
    (fd("namespace", "r"), "a namespace"),
    (fd("anonymous", "rw"), "an anonymous descriptor"),
    (fd("pseudo-filesystem", "rw"), "a file of a pseudo filesystem"),
]


@pytest.mark.parametrize("position", [0, 1, 2])
@pytest.mark.parametrize(("fact", "words"), NO_STREAM)
def test_no_standard_stream(position: int, fact: FdFact, words: str) -> None:
    files = [*STDIO, DIRECTORY]
    files[position] = fact
    name = ("stdin", "stdout", "stderr")[position]
    assert refused(files=files) == f"importing fds: {name} must be {STREAM}{words}"


@pytest.mark.parametrize("kind", ["fifo", "socket", "terminal", "null", "regular"])
def test_standard_streams(kind: str) -> None:
    files = (fd(kind, "r"), fd(kind, "w"), fd(kind, "rw"), DIRECTORY)
    assert refused(files=files) == ""


@pytest.mark.parametrize(
    ("position", "access", "text"),
    [
        (0, "w", "stdin must be open for reading, but its access mode is w"),
        (1, "r", "stdout must be open for writing, but its access mode is r"),
        (2, "r", "stderr must be open for writing, but its access mode is r"),
    ],
)
def test_standard_streams_the_wrong_way(position: int, access: str, text: str) -> None:
    files = [*STDIO, DIRECTORY]
    files[position] = fd("fifo", access)
    assert refused(files=files) == f"importing fds: {text}"


@pytest.mark.parametrize(
    ("fact", "words"),
    [
        (fd("socket", "rw"), "a socket (a gofer connection is of no use on a host kernel)"),
        (fd("regular", "r"), "a regular file"),
        (fd("null", "rw"), "/dev/null"),
        (fd("symlink", "path"), "a symbolic link"),
        (fd("namespace", "r"), "a namespace"),
    ],
)
def test_rootfs_must_be_a_directory(fact: FdFact, words: str) -> None:
    assert refused(files=(*STDIO, fact)) == f"{SETUP}the rootfs must be a directory, but is {words}"


@pytest.mark.parametrize(
    ("fact", "words"),
    [
        (fd("socket", "rw"), "a socket (a gofer connection is of no use on a host kernel)"),
        (fd("fifo", "r"), "a fifo"),
        (fd("block-device", "r"), "a block device"),
    ],
)
def test_bind_source_must_be_a_directory_or_file(fact: FdFact, words: str) -> None:
    error = refused(files=(*STDIO, DIRECTORY, fact), spec=a_spec(mounts=[bind("/a")]))
    assert error == f'{SUBMOUNTS}"/a" must be a directory or regular file, but is {words}'


@pytest.mark.parametrize(
    ("fact", "words"),
    [(DIRECTORY, "a directory"), (fd("regular", "path"), "a regular file"), (TTY, "a terminal")],
)
def test_erofs_image_must_be_a_readable_file(fact: FdFact, words: str) -> None:
    request = a_request(files=(*STDIO, fact), gofer_mount_confs=(GoferMountConf(lower=2),))
    assert refused(request=request) == (
        f"{SETUP}the rootfs must be a readable regular file with an EROFS image, but is {words}"
    )


def test_filestore_must_be_a_directory() -> None:
    request = a_request(
        files=(*STDIO, FILE, DIRECTORY),
        num_gofer_filestore_fds=1,
        gofer_mount_confs=(GoferMountConf(lower=1, upper=2),),
    )
    assert refused(request=request) == (
        f"{SETUP}filestore of the rootfs must be a directory, but is a regular file"
    )


@pytest.mark.parametrize(
    ("fact", "words"),
    [
        (DIRECTORY, "a directory"),
        (fd("regular", "w"), "a regular file"),
        (fd("fifo", "w"), "a fifo"),
        (fd("socket", "rw"), "a socket"),
    ],
)
def test_upper_tar_must_be_a_readable_file_or_pipe(fact: FdFact, words: str) -> None:
    request = a_request(
        files=(*STDIO, fact, DIRECTORY),
        is_rootfs_upper_tar_file_present=True,
        gofer_mount_confs=(MEMORY_OVER_LISAFS,),
    )
    assert refused(request=request) == (
        f"{SETUP}rootfs upper tar must be a readable regular file or pipe, but is {words}"
    )


@pytest.mark.parametrize("fact", [FILE, fd("regular", "rw"), fd("fifo", "r")])
def test_upper_tar(fact: FdFact) -> None:
    request = a_request(
        files=(*STDIO, fact, DIRECTORY),
        is_rootfs_upper_tar_file_present=True,
        gofer_mount_confs=(MEMORY_OVER_LISAFS,),
    )
    assert refused(request=request) == ""


def test_upper_tar_needs_an_overlay() -> None:
    request = a_request(
        files=(*STDIO, FILE, DIRECTORY),
        is_rootfs_upper_tar_file_present=True,
        gofer_mount_confs=(GoferMountConf(lower=1, upper=0, size="10M"),),
    )
    assert refused(request=request) == (
        f"{SETUP}rootfs-upper-tar-fd is set when overlay is disabled for rootfs: "
        "rootfsConf=lisafs:none:size=10M"
    )


@pytest.mark.parametrize(
    ("request_members", "mounts", "text"),
    [
        (
            {"files": (*STDIO, DIRECTORY)},
            [bind("/a")],
            f'{SUBMOUNTS}too few gofer FDs: none is left for "/a"',
        ),
        (
            {"gofer_mount_confs": (GoferMountConf(lower=1, upper=2),)},
            [],
            f"{SETUP}too few gofer filestore FDs: none is left for the rootfs",
        ),
        (
            {"gofer_mount_confs": (GoferMountConf(),) * 3},
            [bind("/a")],
            f"{SUBMOUNTS}GoferMountConfs must have one entry for the rootfs and one for each of "
            "the 1 bind and EROFS mounts, but has 3",
        ),
        (
            {"num_gofer_filestore_fds": 2**62},
            [],
            "start arguments must contain at least 4611686018427387908 FDs, but only got 4",
        ),
    ],
)
def test_lists_of_the_wrong_length(
    request_members: dict[str, Any], mounts: list[Any], text: str
) -> None:
    assert refused(request=a_request(**request_members), spec=a_spec(mounts=mounts)) == text


@pytest.mark.parametrize(
    ("destination", "words"),
    [
        ("", 'mount destination "" must be an absolute path without ".."'),
        ("a", 'mount destination "a" must be an absolute path without ".."'),
        ("/a/../b", 'mount destination "/a/../b" must be an absolute path without ".."'),
        ("/a\0", 'mount destination "/a\\x00" must be an absolute path without ".."'),
        ("//", 'mount destination "//" is the rootfs itself'),
    ],
)
def test_mount_destinations(destination: str, words: str) -> None:
    spec = a_spec(mounts=[{"destination": destination, "type": "tmpfs"}])
    assert refused(spec=spec) == f"{SUBMOUNTS}{words}"


def test_a_dot_dot_inside_a_name_is_no_way_up() -> None:
    assert refused(spec=a_spec(mounts=[{"destination": "/a/..b", "type": "tmpfs"}])) == ""


def test_a_root_container_obeys_the_same_rules() -> None:
    command = create(a_request(SANDBOX, files=(*STDIO, FILE)))
    (event,) = decide(history(), command)
    assert isinstance(event, e.SandboxCreateRejected)
    assert event.error == f"{SETUP}the rootfs must be a directory, but is a regular file"
