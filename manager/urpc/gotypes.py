"""The argument types of the methods that sandtrail serves, as Go types.

`request.decode(START_ARGS)` gives a dict with every key below: zero values filled in, `Spec` as in
`gotypes_oci` or None, `Conf` as a dict of whatever was sent or None.

Source: gVisor runsc/boot/controller.go (HEAD). The 2022 client sends fewer keys, which decode to
zero values. `RequestID` on objects and everything named sandtrail.* is ours.
"""

from typing import Final

from manager.urpc.gojson import (
    GoBool,
    GoInt,
    GoMap,
    GoOpaque,
    GoPointer,
    GoSlice,
    GoString,
    GoStringOr,
    GoStruct,
    field,
)
from manager.urpc.gotypes_oci import SPEC

_INT: Final = GoInt(64, signed=True, name="int")
_INT32: Final = GoInt(32, signed=True)
_REQUEST_ID: Final = field("RequestID", GoString())
_CID: Final = field("CID", GoString())

STRING: Final = GoString()
"""A bare string: StartRoot, DestroySubcontainer, Wait, Processes, Event, ContainerRuntimeState,
sandboxManager.State. `null` is the empty string."""

NO_ARGUMENT: Final = GoStruct("struct {}", [])
"""`null` or any object: Pause, Resume, sandboxManager.List, sandboxManager.Version."""

CONF_KEYS: Final = (
    "AllowRootfsTarAnnotation",
    "CharacterDevicePolicy",
    "DCache",
    "DirectFS",
    "EnableRaw",
    "FileAccess",
    "FileAccessMounts",
    "GVisorMarkerFile",
    "HostFifo",
    "HostUDS",
    "MountCgroupV2",
    "NVProxyDocker",
    "Network",
    "OCISeccomp",
    "Overlay",
    "Overlay2",
    "OverrideProcs",
    "Platform",
    "RestoreSpecValidation",
    "TPUProxy",
)
"""Members of Conf that mean something here; they are found in whatever case they come."""

CONF: Final = GoOpaque("config.Config", CONF_KEYS)
"""Only that it is an object is checked: its members differ between releases of gVisor."""

GOFER_MOUNT_CONF: Final = GoStruct(
    "boot.GoferMountConf",
    [
        field("lower", GoInt(8, signed=False, name="boot.GoferMountConfLowerType")),
        field("upper", GoInt(8, signed=False, name="boot.GoferMountConfUpperType")),
        field("size", GoString()),
    ],
)

_START_FIELDS: Final = (
    field("Spec", GoPointer(SPEC)),
    field("Conf", CONF),
    _CID,
    field("NumGoferFilestoreFDs", _INT),
    field("IsDevIoFilePresent", GoBool()),
    field("GoferMountConfs", GoSlice(GOFER_MOUNT_CONF)),
    field("IsRootfsUpperTarFilePresent", GoBool()),
    _REQUEST_ID,
)

START_ARGS: Final = GoStruct("boot.StartArgs", _START_FIELDS)
"""StartSubcontainer, RestoreSubcontainer."""

RESTORE_OPTS: Final = GoStruct(
    "boot.RestoreOpts",
    [
        field("HavePagesFile", GoBool()),
        field("HaveDeviceFile", GoBool()),
        field("Background", GoBool()),
        _REQUEST_ID,
    ],
)
"""Restore."""

SAVE_OPTS: Final = GoStruct(
    "control.SaveOpts",
    [
        field("key", GoString()),
        field("metadata", GoMap(GoString())),
        field("have_pages_file", GoBool()),
        field("Resume", GoBool()),
        field("use_checkpoint_gofer", GoBool()),
        _REQUEST_ID,
    ],
)
"""Checkpoint. A client of 2022 sends the first two."""

CREATE_ARGS: Final = GoStruct("boot.CreateArgs", [_CID, _REQUEST_ID])
"""CreateSubcontainer."""

SIGNAL_ARGS: Final = GoStruct(
    "boot.SignalArgs",
    [
        _CID,
        field("Signo", _INT32),
        field("PID", _INT32),
        field("Mode", GoInt(64, signed=True, name="boot.SignalDeliveryMode")),
        _REQUEST_ID,
    ],
)
"""Signal."""

WAIT_PID_ARGS: Final = GoStruct("boot.WaitPIDArgs", [field("PID", _INT32), _CID, _REQUEST_ID])
"""WaitPID."""

_CAPABILITY_SET: Final = GoInt(64, signed=False, name="auth.CapabilitySet")

EXEC_ARGS: Final = GoStruct(
    "control.ExecArgs",
    [
        field("filename", GoString()),
        field("argv", GoSlice(GoString())),
        field("envv", GoSlice(GoString())),
        field("wd", GoString()),
        field("KUID", GoInt(32, signed=False, name="auth.KUID")),
        field("KGID", GoInt(32, signed=False, name="auth.KGID")),
        field("ExtraKGIDs", GoSlice(GoInt(32, signed=False, name="auth.KGID"))),
        field("NoNewPrivileges", GoBool()),
        field(
            "Capabilities",
            GoPointer(
                GoStruct(
                    "auth.TaskCapabilities",
                    [
                        field("PermittedCaps", _CAPABILITY_SET),
                        field("InheritableCaps", _CAPABILITY_SET),
                        field("EffectiveCaps", _CAPABILITY_SET),
                        field("BoundingCaps", _CAPABILITY_SET),
                        field("AmbientCaps", _CAPABILITY_SET),
                    ],
                )
            ),
        ),
        field("StdioIsPty", GoBool()),
        field("GuestFDs", GoSlice(_INT)),
        field("ContainerID", GoString()),
        _REQUEST_ID,
    ],
)
"""ExecuteAsync. A client of 2022 sends no GuestFDs: its files are 0, 1 and 2."""
PAUSE_ARGS: Final = GoStruct("struct {}", [_REQUEST_ID])
"""Pause, Resume: gVisor's take nothing."""

PS_ARGS: Final = GoStruct("control.PsArgs", [field("JSON", GoBool())])
"""Proc.Ps."""

MEMORY_USAGE_OPTS: Final = GoStruct("control.MemoryUsageOpts", [field("Full", GoBool())])
"""Usage.Collect; what the kernel of the host counts is always counted in full."""

SANDBOX_CREATE_ARGS: Final = GoStruct(
    "sandtrail.CreateSandboxArgs", [field("ID", GoString()), *_START_FIELDS]
)
"""sandboxManager.Create: the sandbox's id and the root container's start arguments."""

SANDBOX_DELETE_ARGS: Final = GoStringOr(
    "ID",
    GoStruct(
        "sandtrail.DeleteSandboxArgs",
        [field("ID", GoString()), field("Force", GoBool()), _REQUEST_ID],
    ),
)
"""sandboxManager.Delete: an id, or an object with it."""

MARK_ARGS: Final = GoStruct(
    "sandtrail.MarkArgs",
    [
        field("Name", GoString()),
        field("Position", _INT),
        field("Message", GoString()),
        _REQUEST_ID,
    ],
)
"""sandboxManager.Mark: a name for a position of the log, 0 for the call's own."""
