"""The rules of a start, in the order in which they are asked.

The order and the texts are gVisor's wherever gVisor answers with an error; where gVisor crashes,
hangs or leaks the text is ours. The first rule that objects wins.
"""

from collections.abc import Callable

from manager.domain.features import features_needed
from manager.domain.gotext import quote
from manager.domain.ids import ID_RULE, is_valid_id
from manager.domain.payload import LaunchPlan
from manager.domain.payload_rules import check_counts, check_stdio, plan_payload, uses_terminal
from manager.domain.process_rules import (
    SANDBOX_NAMESPACES,
    SPEC_BYTES_MAX,
    check_args,
    check_credentials,
    check_env,
    check_host_reach,
    check_limits,
    check_user,
    container_name,
    executable,
    search_path,
)
from manager.domain.request import EngineFacts, StartRequest
from manager.domain.spec import Namespace, Process, Spec
from manager.domain.state import ALIVE, LaunchIntent, Sandbox


def check_arguments(request: StartRequest, spec: Spec | None) -> str:
    """Ask what can be asked without a look at the sandbox."""
    if spec is None:
        return "start arguments missing spec"
    if request.conf is None:
        return "start arguments missing config"
    if spec.process is None:
        return "start arguments missing process in spec"
    if not request.cid:
        return "start argument missing container ID"
    return _check_limits_of_ours(request)


def _check_limits_of_ours(request: StartRequest) -> str:
    if not is_valid_id(request.cid):
        return f"invalid container ID {quote(request.cid)}: want {ID_RULE}"
    if request.spec_bytes > SPEC_BYTES_MAX:
        return (
            f"start arguments spec must have at most {SPEC_BYTES_MAX} bytes, "
            f"but has {request.spec_bytes}"
        )
    return ""


def check_state(state: Sandbox) -> str:
    """Ask whether subcontainers may start in this sandbox now."""
    if state.phase not in {"started", "restored"}:
        return f"sandbox is not in started state, cannot start subcontainer: state={state.phase}"
    if state.deleting:
        return f"sandbox {quote(state.id)} is being deleted"
    if state.paused or state.pausing is not None:
        return "sandbox is paused, cannot start subcontainer"
    if state.checkpointing is not None:
        return "sandbox is being checkpointed, cannot start subcontainer"
    return ""


def check_container(state: Sandbox, cid: str) -> str:
    """Ask whether this container waits to be started."""
    found = state.container(cid)
    if found is None:
        return f"trying to start a deleted container {quote(cid)}"
    if found.destroying:
        return f"container {quote(cid)} is being destroyed"
    if found.status not in {"creating", "failed"}:
        return f"container {quote(cid)} is already started"
    return ""


def check_start(
    request: StartRequest, spec: Spec, *, has_tty: bool, on_container: Callable[[], str]
) -> str:
    """Ask everything that can be asked of a start before its descriptors are given their parts.

    Expects :func:`check_arguments` to have passed. ``on_container`` is asked in its place, between
    the descriptor count and the credentials.
    """
    process = spec.process or Process()
    return (
        check_counts(request, spec)
        or on_container()
        or check_credentials(process)
        or check_user(process)
        or check_limits(process)
        or check_env(process)
        or check_args(process)
        or _check_terminal(spec, has_tty)
        or check_stdio(request, spec)
        or check_host_reach(spec, request.permits)
    )


def _check_terminal(spec: Spec, has_tty: bool) -> str:
    if uses_terminal(spec) and not has_tty:
        return "terminal enabled but no TTY provided. Did you set --console-socket on create?"
    return ""


def plan_launch(
    state: Sandbox,
    request: StartRequest,
    spec: Spec,
    engine: EngineFacts,
    ids: tuple[str, str],
) -> LaunchIntent | str:
    """Decide how a start that passed every other rule is carried out.

    ``ids`` are the launch id and the engine id. Returns the intent, or the text of the refusal.
    """
    foreign = _foreign_namespaces(state, request, spec)
    plan = _check_namespaces(request, engine, foreign) or plan_payload(request, spec)
    if isinstance(plan, str):
        return plan
    joins = _joined_pid_namespace(state, spec) if request.cid != state.id else None
    if error := _check_engine(engine, spec, plan, joins_pid_namespace=joins is not None):
        return error
    pid = spec.linux.namespace("pid") if spec.linux is not None else None
    launch_id, engine_id = ids
    return LaunchIntent(
        launch_id=launch_id,
        engine_id=engine_id,
        engine=engine.name,
        engine_version=engine.version,
        request=request,
        plan=plan,
        name=container_name(spec) or _unnamed(state, request.cid),
        joins_pid_namespace=joins,
        pid_namespace_path=pid.path if pid is not None else "",
        namespace_paths={SANDBOX_NAMESPACES[each.type]: each.path for each in foreign},
        executable=executable(spec),
        search_path=search_path(spec),
    )


def _check_engine(
    engine: EngineFacts, spec: Spec, plan: LaunchPlan, *, joins_pid_namespace: bool
) -> str:
    needed = features_needed(spec, plan, joins_pid_namespace=joins_pid_namespace)
    missing = [feature for feature in needed if feature in engine.lacks]
    if missing:
        return engine.refusal(*missing)
    return ""


def _unnamed(state: Sandbox, cid: str) -> str:
    """A name like gVisor's; that of an earlier start of the same container is free again."""
    taken = {name for name, owner in state.names.items() if owner != cid}
    number = len(taken)
    while (name := f"__no_name_{number}") in taken:
        number += 1
    return name


def _foreign_namespaces(state: Sandbox, request: StartRequest, spec: Spec) -> tuple[Namespace, ...]:
    """The namespaces that are named by a path which is not the sandbox's own."""
    if request.ignore_namespace_paths:
        return ()
    root = state.container(state.id) if request.cid != state.id else None
    launched = root.launched if root is not None else None
    foreign = []
    for namespace in (spec.linux.namespaces if spec.linux else None) or ():
        name = SANDBOX_NAMESPACES.get(namespace.type)
        own = f"/proc/{launched.pid}/ns/{name}" if launched is not None else None
        if name is not None and namespace.path not in {"", own}:
            foreign.append(namespace)
    return tuple(foreign)


def _check_namespaces(
    request: StartRequest, engine: EngineFacts, foreign: tuple[Namespace, ...]
) -> str:
    """Refuse a namespace of the host unless that is permitted, and the engine can join it.

    A service may also be told to run such containers in the sandbox's own all the same.
    """
    if not foreign:
        return ""
    if "namespace-paths" not in request.permits:
        return (
            f"joining the {foreign[0].type} namespace {quote(foreign[0].path)} is not permitted: a "
            "container has that of its sandbox; start the service with --permit namespace-paths to "
            "join it, or with --ignore-namespace-paths to run it in that"
        )
    return engine.refusal("namespace-paths") if "namespace-paths" in engine.lacks else ""


def _joined_pid_namespace(state: Sandbox, spec: Spec) -> str | None:
    """The cid whose PID namespace a subcontainer joins, or ``None`` for a new one.

    No entry in the spec: the root's. An entry without a path: a new one. An entry with a path: the
    root's if the path is the root's own, else that of the first live container whose spec had the
    same path, else a new one (the path itself is never followed).
    """
    entry = spec.linux.namespace("pid") if spec.linux is not None else None
    if entry is None:
        return state.id
    if not entry.path:
        return None
    root = state.container(state.id)
    launched = root.launched if root is not None else None
    if launched is not None and entry.path == f"/proc/{launched.pid}/ns/pid":
        return state.id
    for found in state.containers.values():
        intent = found.intent
        runs = found.status in ALIVE - {"starting"}
        if intent is not None and runs and intent.pid_namespace_path == entry.path:
            return found.cid
    return None
