"""Every method of gVisor's control socket: which gVisor has it, and why some have no meaning here.

``docs/gvisor-compatibility.md`` is written from this table and from the methods that there are.
"""

from collections.abc import Iterable, Mapping
from typing import Final, Literal, TypeAlias

Since: TypeAlias = Literal["both", "2022", "HEAD"]

NO_KERNEL: Final = "containers run on the host's kernel, there is none of their own to ask"
NETWORK: Final = "networks are the caller's business: give the container a network namespace"
TRACING: Final = "use the host's tracing; what sandtrail did is in its log"
CHECKPOINTS: Final = "use containerManager.Checkpoint, which saves whole sandboxes"
FILES: Final = "file trees are donated when a container is created or started"
LIFECYCLE: Final = "use the containerManager method of the same purpose"
PROFILING: Final = "profile the container's processes with the host's tools"

OF_GVISOR: Final[Mapping[str, Since]] = {
    "containerManager.StartRoot": "both",
    "containerManager.CreateSubcontainer": "both",
    "containerManager.StartSubcontainer": "both",
    "containerManager.RestoreSubcontainer": "HEAD",
    "containerManager.DestroySubcontainer": "both",
    "containerManager.ExecuteAsync": "both",
    "containerManager.Wait": "both",
    "containerManager.WaitPID": "both",
    "containerManager.Signal": "both",
    "containerManager.Processes": "both",
    "containerManager.Event": "both",
    "containerManager.ContainerRuntimeState": "HEAD",
    "containerManager.Checkpoint": "both",
    "containerManager.Restore": "both",
    "containerManager.Pause": "HEAD",
    "containerManager.Resume": "HEAD",
    "containerManager.WaitCheckpoint": "HEAD",
    "containerManager.WaitRestore": "HEAD",
    "containerManager.WaitFSCheckpoint": "HEAD",
    "containerManager.WaitFSRestore": "HEAD",
    "containerManager.FSSave": "HEAD",
    "containerManager.GetSavings": "HEAD",
    "containerManager.PortForward": "HEAD",
    "containerManager.Mount": "HEAD",
    "containerManager.CreateTraceSession": "both",
    "containerManager.DeleteTraceSession": "both",
    "containerManager.ListTraceSessions": "both",
    "containerManager.ProcfsDump": "both",
    "containerManager.SetNetworkArgs": "HEAD",
    "containerManager.GetNetworkConfig": "HEAD",
    "Cgroups.ReadControlFiles": "both",
    "Cgroups.WriteControlFiles": "both",
    "Events.AttachDebugEmitter": "2022",
    "Fs.Cat": "both",
    "Fs.Mount": "HEAD",
    "Fs.Read": "HEAD",
    "Fs.TarRootfsUpperLayer": "HEAD",
    "Fs.Umount": "HEAD",
    "Lifecycle.GetExitStatus": "both",
    "Lifecycle.IsContainerRunning": "both",
    "Lifecycle.Pause": "both",
    "Lifecycle.PauseExternalNetworking": "HEAD",
    "Lifecycle.Reap": "both",
    "Lifecycle.Resume": "both",
    "Lifecycle.ResumeExternalNetworking": "HEAD",
    "Lifecycle.Shutdown": "both",
    "Lifecycle.SignalContainer": "both",
    "Lifecycle.StartContainer": "both",
    "Logging.Change": "both",
    "Metrics.Export": "HEAD",
    "Metrics.GetRegisteredMetrics": "HEAD",
    "Network.CreateLinksAndRoutes": "both",
    "Network.InitPluginStack": "HEAD",
    "Proc.Exec": "both",
    "Proc.Ps": "both",
    "Proc.SignalProcess": "HEAD",
    "Profile.Block": "both",
    "Profile.CPU": "both",
    "Profile.Goroutine": "2022",
    "Profile.Heap": "both",
    "Profile.Mutex": "both",
    "Profile.Trace": "both",
    "State.Save": "both",
    "State.SaveWithOpts": "HEAD",
    "Usage.Collect": "both",
    "Usage.GetFileIoStats": "2022",
    "Usage.Reduce": "both",
    "Usage.UsageFD": "both",
    "debug.Stacks": "both",
}
"""Method -> where it is found: in the version of 2022 that Debian has, in today's, or in both.

Source: gVisor runsc/boot/controller.go and pkg/sentry/control.
"""

_REASONS: Final[Mapping[str, str]] = {
    "containerManager.WaitFSCheckpoint": CHECKPOINTS,
    "containerManager.WaitFSRestore": CHECKPOINTS,
    "containerManager.FSSave": CHECKPOINTS,
    "containerManager.PortForward": NETWORK,
    "containerManager.Mount": FILES,
    "containerManager.CreateTraceSession": TRACING,
    "containerManager.DeleteTraceSession": TRACING,
    "containerManager.ListTraceSessions": TRACING,
    "containerManager.SetNetworkArgs": NETWORK,
    "containerManager.GetNetworkConfig": NETWORK,
    "Cgroups": "limits are in the container's spec; the host's cgroup files can be read",
    "Events": TRACING,
    "Fs": FILES,
    "Lifecycle": LIFECYCLE,
    "Lifecycle.PauseExternalNetworking": NETWORK,
    "Lifecycle.ResumeExternalNetworking": NETWORK,
    "Logging": "the level of the service's own messages is set when it is started",
    "Metrics": NO_KERNEL,
    "Network": NETWORK,
    "Proc.Exec": "use containerManager.ExecuteAsync and WaitPID",
    "Proc.SignalProcess": "use containerManager.Signal",
    "Profile": PROFILING,
    "State": CHECKPOINTS,
    "Usage": NO_KERNEL,
    "debug": NO_KERNEL,
}


def reason(method: str) -> str:
    """Why a method of gVisor's is not here; empty for one that gVisor does not have either."""
    if method not in OF_GVISOR:
        return ""
    return _REASONS.get(method) or _REASONS.get(method.partition(".")[0], "")


def refusal(method: str) -> str:
    """What its caller is told."""
    return f"{method} is not supported by sandtrail: {reason(method)}"


def table(methods: Iterable[str]) -> str:
    """The table of the document: every method, and what becomes of a call here.

    Args:
        methods: Those that are answered.
    """
    here = frozenset(methods)
    lines = ["| method | gVisor | sandtrail |", "|---|---|---|"]
    for method, since in OF_GVISOR.items():
        answer = "yes" if method in here else f"refused: {reason(method)}"
        lines.append(f"| `{method}` | {since} | {answer} |")
    return "\n".join(lines) + "\n"
