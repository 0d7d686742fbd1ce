"""Short ways to say what tables say: descriptors, specs, starts, histories."""

from typing import Any

from manager.domain import commands as c
from manager.domain.decide import decide
from manager.domain.evolve import fold
from manager.domain.execution import ExecRequest
from manager.domain.exit_status import Exited
from manager.domain.request import EngineFacts, FdFact, GoferMountConf, StartRequest
from manager.domain.spec import Spec, parse_spec_object
from manager.domain.state import ABSENT, Launched, Sandbox

SANDBOX = "s1"
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


def launched(pid: int = 100) -> Launched:
    return Launched(
        pid=pid,
        start_ticks=1,
        pidfd_inode=2,
        boot_id="b",
        engine="crun",
        engine_version="1.8",
        started_at_ns=5,
    )


def reports_started(cid: str = "c1", pid: int = 100) -> c.ReportStarted:
    return c.ReportStarted(launch_id=f"L-{cid}", launched=launched(pid))


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


def reports_lost(cid: str = "c1") -> c.ReportLost:
    return c.ReportLost(launch_id=f"L-{cid}", reason="reboot")


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
