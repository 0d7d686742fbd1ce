"""The decision matrix: every command in every state, printed for a reviewer to diff."""

from collections.abc import Callable, Iterable
from typing import get_args

from msgspec.structs import replace

from manager.domain import commands as c
from manager.domain.checkpoint import RestoreProgress
from manager.domain.decide import decide
from manager.domain.execution import Execution
from manager.domain.exit_status import Exited
from manager.domain.state import (
    ABSENT,
    Container,
    ContainerStatus,
    Failure,
    LaunchIntent,
    Phase,
    Sandbox,
    SignalIntent,
)
from manager.schema.codec import tag_of
from tests.unit.domain import builders as b

PHASES: tuple[Phase, ...] = get_args(Phase)
STATUSES: tuple[ContainerStatus, ...] = get_args(ContainerStatus)
UNKNOWN, LEAVING = "unknown", "running (being destroyed)"
COLUMNS = (UNKNOWN, *STATUSES, LEAVING)
ROWS = (*PHASES, "started (being deleted)")
ROOT_STATUS: dict[str, ContainerStatus] = {
    "created": "creating",
    "restoringUnstarted": "creating",
    "restoringStarted": "starting",
    "restoreFailed": "creating",
    "stopped": "stopped",
    "deleted": "destroyed",
}
CID = "c1"
RESTORING = RestoreProgress(
    restore_id="R-1",
    hold_id="I-1",
    image=b.image("__no_name_0", "one", "two"),
    total=3,
    registered=(b.SANDBOX,),
)

EXECUTIONS = {
    "E-1": Execution(exec_id="E-1", status="starting", executable="sh"),
    "E-2": Execution(exec_id="E-2", status="running", executable="sh", pid=7),
}

OF_A_SUBCONTAINER: dict[str, c.Command] = {
    "CreateSubcontainer": b.new(),
    "StartSubcontainer": b.start(),
    "RestoreSubcontainer": b.restore_sub(images=("root", "one", "two")),
    "DestroySubcontainer": c.DestroySubcontainer(cid=CID),
    "Signal, one process": b.kill(),
    "Signal, all processes": b.kill(mode=1),
    "Execute": b.execute(exec_id="E-new"),
    "ReportExecuted": b.reports_executed(),
    "ReportExecFailed": b.reports_exec_failed(),
    "ReportProcessExited": b.reports_process_exited("E-2"),
    "ReportProcessLost": b.reports_process_lost("E-2"),
    "ReportStarted": b.reports_started(),
    "ReportStartFailed": b.reports_failed(),
    "ReportExited": b.reports_exited(),
    "ReportLost": b.reports_lost(),
    "ReportDestroyed": b.reports_destroyed(),
    "ReportHoldLost": c.ReportHoldLost(cid=CID, reason="reboot"),
    "ReportKilled, of a signal under way": c.ReportKilled(kill_id="K-1"),
}
OF_THE_ROOT: dict[str, c.Command] = {
    "CreateSandbox": b.create(),
    "StartRoot": c.StartRoot(),
    "Restore": b.restore("root", "one"),
    "Checkpoint": b.checkpoint(),
    "ReportSaved, of no checkpoint": b.reports_saved(),
    "ReportSaveFailed, of no checkpoint": c.ReportSaveFailed(
        checkpoint_id="C-1", stage="save", reason="why"
    ),
    "ReportImageLost": c.ReportImageLost(restore_id="R-1", reason="why"),
    "Pause": c.Pause(paused=True, pause_id="P-1", engine=b.ENGINE),
    "Resume": c.Pause(paused=False, pause_id="P-1", engine=b.ENGINE),
    "ReportFrozen, of no pause": c.ReportFrozen(pause_id="P-1"),
    "DeleteSandbox": c.DeleteSandbox(),
    "DeleteSandbox, force": c.DeleteSandbox(force=True),
    "DestroySubcontainer of the root": c.DestroySubcontainer(cid=b.SANDBOX),
    "ReportStarted of the root": b.reports_started("root"),
    "ReportStartFailed of the root": b.reports_failed("root"),
    "ReportExited of the root": b.reports_exited("root"),
    "ReportLost of the root": b.reports_lost("root"),
    "ReportDestroyed of the root": b.reports_destroyed("root"),
    "ReportHoldLost of the root": c.ReportHoldLost(cid=b.SANDBOX, reason="reboot"),
}


def test_decision_matrix(golden: Callable[[str, str], None]) -> None:
    golden("tests/golden/decision_matrix.md", "".join(_page()))


def test_every_command_has_a_table() -> None:
    shown = {type(command) for command in (*OF_A_SUBCONTAINER.values(), *OF_THE_ROOT.values())}
    assert shown == {*get_args(c.ClientCommand), *get_args(c.Report)}


def _page() -> Iterable[str]:
    yield (
        "# Decision matrix\n\n"
        "What each command leaves in the log: rows are the sandbox's states, columns those of the "
        "container that the command is about.\nA command is well-formed; what is wrong with a "
        "malformed one is asked before or after, see the rules.\n`nothing`: no event. `-`: no "
        "history leads there. Rows that are alike stand in one.\n"
    )
    for name, command in OF_A_SUBCONTAINER.items():
        yield from _table(name, command, COLUMNS, _with_subcontainer)
    for name, command in OF_THE_ROOT.items():
        yield from _table(name, command, COLUMNS[1:], _with_root)


def _table(
    name: str,
    command: c.Command,
    columns: tuple[str, ...],
    state_of: Callable[[str, str], Sandbox | None],
) -> Iterable[str]:
    yield f"\n## {name}\n\n| sandbox | {' | '.join(columns)} |\n|---{'|---' * len(columns)}|\n"
    alike: dict[str, list[str]] = {}
    for row in ROWS:
        cells = " | ".join(_cell(state_of(row, column), command) for column in columns)
        alike.setdefault(cells, []).append(row)
    for cells, rows in alike.items():
        yield f"| {', '.join(rows)} | {cells} |\n"


def _cell(state: Sandbox | None, command: c.Command) -> str:
    if state is None:
        return "-"
    tags = [tag_of(type(event)) for event in decide(state, command)]
    return ", ".join(tags) or "nothing"


def _with_subcontainer(row: str, column: str) -> Sandbox | None:
    state = _sandbox(row, ROOT_STATUS.get(row, "running"))
    if column == UNKNOWN:
        return state
    if row == "absent" or (row == "deleted" and column != "destroyed"):
        return None
    containers = {**state.containers, CID: _container(CID, column)}
    signals = {"K-1": SignalIntent(cid=CID, signo=15, pid=0, mode=0)}
    return replace(state, containers=containers, signals=signals)


def _with_root(row: str, column: str) -> Sandbox | None:
    if row == "absent":
        return ABSENT if column == "creating" else None
    if row == "deleted" and column != "destroyed":
        return None
    return _sandbox(row, column)


def _sandbox(row: str, root_column: str) -> Sandbox:
    if row == "absent":
        return ABSENT
    phase, _, deleting = row.partition(" (")
    return Sandbox(
        id=b.SANDBOX,
        phase=phase,  # type: ignore[arg-type]  # a column that is a phase
        deleting=bool(deleting),
        containers={b.SANDBOX: _container(b.SANDBOX, root_column)},
        names={"__no_name_0": b.SANDBOX},
        restore=RESTORING if phase.startswith("restor") else None,
    )


def _container(cid: str, column: str) -> Container:
    status: ContainerStatus = "running" if column == LEAVING else column  # type: ignore[assignment]  # the other columns
    is_root = cid == b.SANDBOX
    waits = status in {"creating", "starting"}
    started = status not in {"creating", "starting", "failed"}
    return Container(
        cid=cid,
        status=status,
        fds_hold="H-root" if waits and is_root else None,
        tty_hold="T-1" if waits else None,
        intent=_intent(cid) if is_root or status != "creating" else None,
        launched=b.launched() if started else None,
        exit=Exited(code=0) if status in {"stopped", "destroyed"} else None,
        failure=Failure(error="e", stage="s", reason="r") if status == "failed" else None,
        destroying=column == LEAVING,
        executions=EXECUTIONS if started and cid == CID else {},
    )


def _intent(cid: str) -> LaunchIntent:
    state = b.history(*b.RUNNING)
    found = state.containers[cid].intent
    assert found is not None
    return found
