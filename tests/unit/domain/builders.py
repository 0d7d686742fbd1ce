"""Short ways to say what tables say: descriptors, specs, starts, histories."""

from typing import Any

from manager.domain import commands as c
from manager.domain.checkpoint import ImageEntry, ImageFacts
from manager.domain.decide import decide
from manager.domain.evolve import fold
from manager.domain.execution import ExecRequest
from manager.domain.exit_status import Exited
from manager.domain.request import EngineFacts, FdFact, GoferMountConf, StartRequest
from manager.domain.spec import Spec, parse_spec_object
from manager.domain.state import ABSENT, Launched, Sandbox

SANDBOX = "s1"
CONTAINER_NAME = "io.kubernetes.cri.container-name"
ENGINE = EngineFacts(name="crun", version="1.8")
LISAFS = GoferMountConf(lower=1, upper=0)


def fd(kind: Any = "directory", access: Any = "r", inode: int = 1) -> FdFact:
    return FdFact(kind=kind, access=access, device=1, inode=inode)


DIRECTORY = fd("directory", "path")
FILE = fd("regular", "r")
STDIO = (fd("fifo", "r"), fd("fifo", "w"), fd("fifo", "w"))
TTY = fd("terminal", "rw")


def a_spec(**members: Any) -> Spec:
    """A spec of ``/bin/true``; keyword arguments replace or add members, OCI names."""
    process = {"args": ["/bin/true"], "cwd": "/", "env": ["PATH=/bin:/usr/bin"]}
    whole = {"ociVersion": "1.2.0", "process": process, **members}
    return parse_spec_object(whole)


def a_process(**members: Any) -> dict[str, Any]:
    return {"args": ["/bin/true"], "cwd": "/", "env": ["PATH=/bin:/usr/bin"], **members}


def bind(destination: str, *options: str) -> dict[str, Any]:
    return {"destination": destination, "type": "bind", "source": "/x", "options": list(options)}


def a_request(cid: str = "c1", files: Any = (*STDIO, DIRECTORY), **members: Any) -> StartRequest:
    given = {"conf": {}, "spec_digest": "sha256:0", "spec_bytes": 100, **members}
    return StartRequest(cid=cid, files=tuple(files), **given)


_SAME: Any = object()


def create(
    request: StartRequest | None = None, spec: Any = _SAME, **members: Any
) -> c.CreateSandbox:
    sandbox_id = members.pop("sandbox_id", SANDBOX)
    given = {
        "engine": ENGINE,
        "launch_id": "L-root",
        "engine_id": "e-root",
        "hold_id": "H-root",
        **members,
    }
    return c.CreateSandbox(
        sandbox_id=sandbox_id,
        request=request or a_request(sandbox_id),
        spec=a_spec() if spec is _SAME else spec,
        **given,
    )


def start(
    cid: str = "c1",
    spec: Any = _SAME,
    request: StartRequest | None = None,
    launch_id: str = "",
    engine: EngineFacts = ENGINE,
    **members: Any,
) -> c.StartSubcontainer:
    return c.StartSubcontainer(
        request=request if request is not None else a_request(cid, **members),
        spec=a_spec() if spec is _SAME else spec,
        engine=engine,
        launch_id=launch_id or f"L-{cid}",
        engine_id=f"e-{cid}",
    )


def new(cid: str = "c1", **members: Any) -> c.CreateSubcontainer:
    hold = {"hold_id": f"T-{cid}"} if members.get("files") else {}
    return c.CreateSubcontainer(cid=cid, **{**hold, **members})


def launched(pid: int = 100, cpu_ns: int = 0) -> Launched:
    return Launched(
        pid=pid,
        start_ticks=1,
        pidfd_inode=2,
        boot_id="b",
        engine="crun",
        engine_version="1.8",
        started_at_ns=5,
        cpu_ns=cpu_ns,
    )


def reports_started(cid: str = "c1", pid: int = 100, cpu_ns: int = 0) -> c.ReportStarted:
    return c.ReportStarted(launch_id=f"L-{cid}", launched=launched(pid, cpu_ns))


def reports_failed(
    cid: str = "c1", stage: str = "create", errno: int | None = None
) -> c.ReportStartFailed:
    return c.ReportStartFailed(launch_id=f"L-{cid}", stage=stage, reason="why", errno=errno)


def reports_exited(cid: str = "c1", exit_status: Any = _SAME) -> c.ReportExited:
    return c.ReportExited(
        launch_id=f"L-{cid}",
        exit=Exited(code=3) if exit_status is _SAME else exit_status,
        source="waitid",
        exited_at_ns=9,
    )


def reports_destroyed(cid: str = "c1") -> c.ReportDestroyed:
    return c.ReportDestroyed(launch_id=f"L-{cid}")


def reports_lost(cid: str = "c1", *, ran: bool = False) -> c.ReportLost:
    return c.ReportLost(launch_id=f"L-{cid}", reason="reboot", ran=ran)


def kill(cid: str = "c1", signo: int = 15, **members: Any) -> c.Signal:
    given = {"pid": 0, "mode": 0, "kill_id": "K-1", **members}
    return c.Signal(cid=cid, signo=signo, **given)


def execute(cid: str = "c1", exec_id: str = "E-1", **members: Any) -> c.Execute:
    given = {"argv": ("/bin/sh",), **members}
    engine = given.pop("engine", ENGINE)
    env_error = given.pop("env_error", "")
    request = ExecRequest(cid=cid, **given)
    return c.Execute(request=request, exec_id=exec_id, engine=engine, env_error=env_error)


def reports_executed(exec_id: str = "E-1", pid: int = 7) -> c.ReportExecuted:
    return c.ReportExecuted(exec_id=exec_id, pid=pid, launched=launched(107))


def reports_exec_failed(
    exec_id: str = "E-1", stage: str = "create", errno: int | None = None
) -> c.ReportExecFailed:
    return c.ReportExecFailed(exec_id=exec_id, stage=stage, reason="why", errno=errno)


def reports_process_exited(exec_id: str = "E-1", exit_status: Any = _SAME) -> c.ReportProcessExited:
    return c.ReportProcessExited(
        exec_id=exec_id,
        exit=Exited(code=3) if exit_status is _SAME else exit_status,
        source="waitid",
        exited_at_ns=9,
    )


def reports_process_lost(exec_id: str = "E-1") -> c.ReportProcessLost:
    return c.ReportProcessLost(exec_id=exec_id, reason="reboot")


def spec_object(name: str = "", **members: Any) -> dict[str, object]:
    """The JSON of :func:`a_spec`, with a name if it has one."""
    annotations = {CONTAINER_NAME: name} if name else {}
    return {
        "ociVersion": "1.2.0",
        "process": a_process(),
        "annotations": annotations,
        **members,
    }


def image(*names: str, **members: Any) -> ImageFacts:
    """An image of containers with these names, the first being the root."""
    entries = tuple(
        ImageEntry(name=name, cid=f"old-{name}", engine_id=f"e-{name}", root=not number)
        for number, name in enumerate(names)
    )
    given = {
        "digest": "sha256:1",
        "engine": ENGINE.name,
        "engine_version": ENGINE.version,
        "container_count": len(names),
        "containers": entries,
        "cpu_ns": 1000,
        "wall_ns": 5000,
        **members,
    }
    return ImageFacts(**given)


def specs_of(*names: str) -> dict[str, dict[str, object]]:
    return {name: spec_object(name) for name in names}


def named_create(name: str = "root", **members: Any) -> c.CreateSandbox:
    return create(spec=parse_spec_object(spec_object(name)), **members)


def restore(*names: str, **members: Any) -> c.Restore:
    """Restore an image of these names; the sandbox's root is the first of them."""
    given = {
        "restore_id": "R-1",
        "engine": ENGINE,
        "files": (FILE,),
        "image": image(*names) if names else None,
        "hold_id": "I-1",
        "spec_object": spec_object(names[0] if names else ""),
        "image_specs": specs_of(*names),
        **members,
    }
    return c.Restore(**given)


def restore_sub(
    cid: str = "c1", name: str = "one", images: Any = ("root", "one", "two"), **members: Any
) -> c.RestoreSubcontainer:
    spec = members.pop("spec_object", spec_object(name))
    known = members.pop("image_specs", specs_of(*images))
    request = members.pop("request", None) or a_request(cid, **members)
    return c.RestoreSubcontainer(
        request=request,
        spec=parse_spec_object(spec),
        engine=ENGINE,
        launch_id=f"L-{cid}",
        hold_id=f"H-{cid}",
        spec_object=spec,
        image_specs=known,
    )


def checkpoint(**members: Any) -> c.Checkpoint:
    given = {
        "checkpoint_id": "C-1",
        "engine": ENGINE,
        "files": (fd("regular", "w"),),
        "image": image("root"),
        **members,
    }
    return c.Checkpoint(**given)


def reports_saved(*, resumed: bool = False, **members: Any) -> c.ReportSaved:
    return c.ReportSaved(checkpoint_id="C-1", image_bytes=7, digest="d", resumed=resumed, **members)


def history(*commands: c.Command, state: Sandbox = ABSENT) -> Sandbox:
    """The state after these commands."""
    for command in commands:
        state = fold(decide(state, command), state)
    return state


CREATED = (create(),)
STARTED = (*CREATED, c.StartRoot(), reports_started("root", pid=99))
WAITING = (*STARTED, new())
STARTING = (*WAITING, start())
RUNNING = (*STARTING, reports_started())
STOPPED = (*RUNNING, reports_exited())
FAILED = (*STARTING, reports_failed())
EXECUTING = (*RUNNING, execute())
EXECUTED = (*EXECUTING, reports_executed())
LOST = (*RUNNING, reports_lost())
DESTROYING = (*RUNNING, c.DestroySubcontainer(cid="c1"))
DESTROYED = (*DESTROYING, reports_exited(), reports_destroyed())
ROOT_EXITED = (*STARTED, reports_exited("root"))
DELETING = (*RUNNING, c.DeleteSandbox(force=True))
DELETED = (*CREATED, c.DeleteSandbox())
RESTORING = (named_create(), restore("root", "one", "two"))
PARKED = (*RESTORING, new(), restore_sub())
TRIGGERED = (*PARKED, new("c2"), restore_sub("c2", "two"))
RESTORED = (*TRIGGERED, *(reports_started(cid) for cid in ("root", "c1", "c2")))
SAVING = (*RUNNING, checkpoint())
