"""The OCI runtime specification's Go types (package specs, 1.2.1), as far as Linux needs them.

Decoding through these gives what Go would marshal again: canonical keys, unknown ones dropped,
empty optional ones left out, so the result is a `config.json` for a runtime that minds case.

Source: runtime-spec v1.2.1, specs-go/config.go: names, kinds and `omitempty` of the fields.
"""

from typing import Final

from manager.urpc.gojson import (
    GoBool,
    GoInt,
    GoMap,
    GoPointer,
    GoSlice,
    GoString,
    GoStruct,
    Shape,
    field,
)
from manager.urpc.gojson.structs import Field

_STRING: Final = GoString()
_STRINGS: Final = GoSlice(_STRING)
_STRING_MAP: Final = GoMap(_STRING)
_BOOL: Final = GoBool()
_INT: Final = GoInt(64, signed=True, name="int")
_UINT: Final = GoInt(64, signed=False, name="uint")
_INT32: Final = GoInt(32, signed=True)
_INT64: Final = GoInt(64, signed=True)
_UINT16: Final = GoInt(16, signed=False)
_UINT32: Final = GoInt(32, signed=False)
_UINT64: Final = GoInt(64, signed=False)


def _optional(key: str, shape: Shape) -> Field:
    return field(key, shape, omit_empty=True)


def _pointer(key: str, shape: Shape) -> Field:
    return field(key, GoPointer(shape), omit_empty=True)


_USER: Final = GoStruct(
    "specs.User",
    [
        field("uid", _UINT32),
        field("gid", _UINT32),
        _pointer("umask", _UINT32),
        _optional("additionalGids", GoSlice(_UINT32)),
        _optional("username", _STRING),
    ],
)

_CAPABILITIES: Final = GoStruct(
    "specs.LinuxCapabilities",
    [
        _optional(key, _STRINGS)
        for key in ("bounding", "effective", "inheritable", "permitted", "ambient")
    ],
)

_RLIMIT: Final = GoStruct(
    "specs.POSIXRlimit", [field("type", _STRING), field("hard", _UINT64), field("soft", _UINT64)]
)

_SCHEDULER: Final = GoStruct(
    "specs.Scheduler",
    [
        field("policy", GoString("specs.LinuxSchedulerPolicy")),
        _optional("nice", _INT32),
        _optional("priority", _INT32),
        _optional("flags", GoSlice(GoString("specs.LinuxSchedulerFlag"))),
        _optional("runtime", _UINT64),
        _optional("deadline", _UINT64),
        _optional("period", _UINT64),
    ],
)

_PROCESS: Final = GoStruct(
    "specs.Process",
    [
        _optional("terminal", _BOOL),
        _pointer(
            "consoleSize",
            GoStruct("specs.Box", [field("height", _UINT), field("width", _UINT)]),
        ),
        field("user", _USER),
        _optional("args", _STRINGS),
        _optional("commandLine", _STRING),
        _optional("env", _STRINGS),
        field("cwd", _STRING),
        _pointer("capabilities", _CAPABILITIES),
        _optional("rlimits", GoSlice(_RLIMIT)),
        _optional("noNewPrivileges", _BOOL),
        _optional("apparmorProfile", _STRING),
        _pointer("oomScoreAdj", _INT),
        _pointer("scheduler", _SCHEDULER),
        _optional("selinuxLabel", _STRING),
        _pointer(
            "ioPriority",
            GoStruct(
                "specs.LinuxIOPriority",
                [field("class", GoString("specs.IOPriorityClass")), field("priority", _INT)],
            ),
        ),
        _pointer(
            "execCPUAffinity",
            GoStruct(
                "specs.CPUAffinity", [_optional("initial", _STRING), _optional("final", _STRING)]
            ),
        ),
    ],
)

_ID_MAPPINGS: Final = GoSlice(
    GoStruct(
        "specs.LinuxIDMapping",
        [field("containerID", _UINT32), field("hostID", _UINT32), field("size", _UINT32)],
    )
)

_MOUNT: Final = GoStruct(
    "specs.Mount",
    [
        field("destination", _STRING),
        _optional("type", _STRING),
        _optional("source", _STRING),
        _optional("options", _STRINGS),
        _optional("uidMappings", _ID_MAPPINGS),
        _optional("gidMappings", _ID_MAPPINGS),
    ],
)

_HOOK_LIST: Final = GoSlice(
    GoStruct(
        "specs.Hook",
        [
            field("path", _STRING),
            _optional("args", _STRINGS),
            _optional("env", _STRINGS),
            _pointer("timeout", _INT),
        ],
    )
)

_HOOKS: Final = GoStruct(
    "specs.Hooks",
    [
        _optional(key, _HOOK_LIST)
        for key in (
            "prestart",
            "createRuntime",
            "createContainer",
            "startContainer",
            "poststart",
            "poststop",
        )
    ],
)

_DEVICE_CGROUP: Final = GoStruct(
    "specs.LinuxDeviceCgroup",
    [
        field("allow", _BOOL),
        _optional("type", _STRING),
        _pointer("major", _INT64),
        _pointer("minor", _INT64),
        _optional("access", _STRING),
    ],
)

_MEMORY: Final = GoStruct(
    "specs.LinuxMemory",
    [
        *(_pointer(key, _INT64) for key in ("limit", "reservation", "swap", "kernel", "kernelTCP")),
        _pointer("swappiness", _UINT64),
        *(
            _pointer(key, _BOOL)
            for key in ("disableOOMKiller", "useHierarchy", "checkBeforeUpdate")
        ),
    ],
)

_CPU: Final = GoStruct(
    "specs.LinuxCPU",
    [
        _pointer("shares", _UINT64),
        _pointer("quota", _INT64),
        _pointer("burst", _UINT64),
        _pointer("period", _UINT64),
        _pointer("realtimeRuntime", _INT64),
        _pointer("realtimePeriod", _UINT64),
        _optional("cpus", _STRING),
        _optional("mems", _STRING),
        _pointer("idle", _INT64),
    ],
)

_DEVICE_NUMBERS: Final = (field("major", _INT64), field("minor", _INT64))
_WEIGHTS: Final = (_pointer("weight", _UINT16), _pointer("leafWeight", _UINT16))
_THROTTLES: Final = GoSlice(
    GoStruct("specs.LinuxThrottleDevice", [*_DEVICE_NUMBERS, field("rate", _UINT64)])
)

_BLOCK_IO: Final = GoStruct(
    "specs.LinuxBlockIO",
    [
        *_WEIGHTS,
        _optional(
            "weightDevice",
            GoSlice(GoStruct("specs.LinuxWeightDevice", [*_DEVICE_NUMBERS, *_WEIGHTS])),
        ),
        *(
            _optional(f"throttle{way}Device", _THROTTLES)
            for way in ("ReadBps", "WriteBps", "ReadIOPS", "WriteIOPS")
        ),
    ],
)

_HUGEPAGE_LIMIT: Final = GoStruct(
    "specs.LinuxHugepageLimit", [field("pageSize", _STRING), field("limit", _UINT64)]
)

_NETWORK: Final = GoStruct(
    "specs.LinuxNetwork",
    [
        _pointer("classID", _UINT32),
        _optional(
            "priorities",
            GoSlice(
                GoStruct(
                    "specs.LinuxInterfacePriority",
                    [field("name", _STRING), field("priority", _UINT32)],
                )
            ),
        ),
    ],
)

_RDMA: Final = GoStruct(
    "specs.LinuxRdma", [_pointer("hcaHandles", _UINT32), _pointer("hcaObjects", _UINT32)]
)

_RESOURCES: Final = GoStruct(
    "specs.LinuxResources",
    [
        _optional("devices", GoSlice(_DEVICE_CGROUP)),
        _pointer("memory", _MEMORY),
        _pointer("cpu", _CPU),
        _pointer("pids", GoStruct("specs.LinuxPids", [field("limit", _INT64)])),
        _pointer("blockIO", _BLOCK_IO),
        _optional("hugepageLimits", GoSlice(_HUGEPAGE_LIMIT)),
        _pointer("network", _NETWORK),
        _optional("rdma", GoMap(_RDMA)),
        _optional("unified", _STRING_MAP),
    ],
)

_NAMESPACE: Final = GoStruct(
    "specs.LinuxNamespace",
    [field("type", GoString("specs.LinuxNamespaceType")), _optional("path", _STRING)],
)

_DEVICE: Final = GoStruct(
    "specs.LinuxDevice",
    [
        field("path", _STRING),
        field("type", _STRING),
        *_DEVICE_NUMBERS,
        _pointer("fileMode", GoInt(32, signed=False, name="fs.FileMode")),
        _pointer("uid", _UINT32),
        _pointer("gid", _UINT32),
    ],
)

_SECCOMP_ACTION: Final = GoString("specs.LinuxSeccompAction")

_SYSCALL: Final = GoStruct(
    "specs.LinuxSyscall",
    [
        field("names", _STRINGS),
        field("action", _SECCOMP_ACTION),
        _pointer("errnoRet", _UINT),
        _optional(
            "args",
            GoSlice(
                GoStruct(
                    "specs.LinuxSeccompArg",
                    [
                        field("index", _UINT),
                        field("value", _UINT64),
                        _optional("valueTwo", _UINT64),
                        field("op", GoString("specs.LinuxSeccompOperator")),
                    ],
                )
            ),
        ),
    ],
)

_SECCOMP: Final = GoStruct(
    "specs.LinuxSeccomp",
    [
        field("defaultAction", _SECCOMP_ACTION),
        _pointer("defaultErrnoRet", _UINT),
        _optional("architectures", GoSlice(GoString("specs.Arch"))),
        _optional("flags", GoSlice(GoString("specs.LinuxSeccompFlag"))),
        _optional("listenerPath", _STRING),
        _optional("listenerMetadata", _STRING),
        _optional("syscalls", GoSlice(_SYSCALL)),
    ],
)

_INTEL_RDT: Final = GoStruct(
    "specs.LinuxIntelRdt",
    [
        _optional("closID", _STRING),
        _optional("l3CacheSchema", _STRING),
        _optional("memBwSchema", _STRING),
        _optional("enableCMT", _BOOL),
        _optional("enableMBM", _BOOL),
    ],
)

_PERSONALITY: Final = GoStruct(
    "specs.LinuxPersonality",
    [
        field("domain", GoString("specs.LinuxPersonalityDomain")),
        _optional("flags", GoSlice(GoString("specs.LinuxPersonalityFlag"))),
    ],
)

_TIME_OFFSET: Final = GoStruct(
    "specs.LinuxTimeOffset", [_optional("secs", _INT64), _optional("nanosecs", _UINT32)]
)

_LINUX: Final = GoStruct(
    "specs.Linux",
    [
        _optional("uidMappings", _ID_MAPPINGS),
        _optional("gidMappings", _ID_MAPPINGS),
        _optional("sysctl", _STRING_MAP),
        _pointer("resources", _RESOURCES),
        _optional("cgroupsPath", _STRING),
        _optional("namespaces", GoSlice(_NAMESPACE)),
        _optional("devices", GoSlice(_DEVICE)),
        _pointer("seccomp", _SECCOMP),
        _optional("rootfsPropagation", _STRING),
        _optional("maskedPaths", _STRINGS),
        _optional("readonlyPaths", _STRINGS),
        _optional("mountLabel", _STRING),
        _pointer("intelRdt", _INTEL_RDT),
        _pointer("personality", _PERSONALITY),
        _optional("timeOffsets", GoMap(_TIME_OFFSET)),
    ],
)

SPEC: Final = GoStruct(
    "specs.Spec",
    [
        field("ociVersion", _STRING),
        _pointer("process", _PROCESS),
        _pointer(
            "root",
            GoStruct("specs.Root", [field("path", _STRING), _optional("readonly", _BOOL)]),
        ),
        _optional("hostname", _STRING),
        _optional("domainname", _STRING),
        _optional("mounts", GoSlice(_MOUNT)),
        _pointer("hooks", _HOOKS),
        _optional("annotations", _STRING_MAP),
        _pointer("linux", _LINUX),
    ],
)
"""`specs.Spec`. The parts for other systems (solaris, windows, vm, zos) are dropped."""
