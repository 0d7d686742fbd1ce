"""Trees fitted to Go types; the texts are those that encoding/json of Go 1.19 gave."""

import re

import pytest

from manager.urpc.errors import DecodeError, MalformedMessage
from manager.urpc.gojson import (
    GoBool,
    GoInt,
    GoMap,
    GoPointer,
    GoSlice,
    GoString,
    GoStruct,
    Shape,
    decode,
    field,
)
from manager.urpc.gotypes import (
    CREATE_ARGS,
    NO_ARGUMENT,
    SANDBOX_CREATE_ARGS,
    SANDBOX_DELETE_ARGS,
    SIGNAL_ARGS,
    START_ARGS,
    STRING,
    WAIT_PID_ARGS,
)
from manager.urpc.gotypes_oci import SPEC

ZERO_START_ARGS = {
    "Spec": None,
    "Conf": None,
    "CID": "",
    "NumGoferFilestoreFDs": 0,
    "IsDevIoFilePresent": False,
    "GoferMountConfs": [],
    "IsRootfsUpperTarFilePresent": False,
    "RequestID": "",
}

FIELD = "json: cannot unmarshal {} into Go struct field {} of type {}"
VALUE = "json: cannot unmarshal {} into Go value of type {}"


@pytest.mark.parametrize(
    ("shape", "raw", "text"),
    [
        (START_ARGS, b'"x"', VALUE.format("string", "boot.StartArgs")),
        (START_ARGS, b"5", VALUE.format("number", "boot.StartArgs")),
        (START_ARGS, b"true", VALUE.format("bool", "boot.StartArgs")),
        (START_ARGS, b"[]", VALUE.format("array", "boot.StartArgs")),
        (CREATE_ARGS, b'"c1"', VALUE.format("string", "boot.CreateArgs")),
        (STRING, b"{}", VALUE.format("object", "string")),
        (STRING, b"1", VALUE.format("number", "string")),
        (NO_ARGUMENT, b"[]", VALUE.format("array", "struct {}")),
        (NO_ARGUMENT, b'"x"', VALUE.format("string", "struct {}")),
        (SANDBOX_DELETE_ARGS, b"[]", VALUE.format("array", "sandtrail.DeleteSandboxArgs")),
        (START_ARGS, b'{"CID":15}', FIELD.format("number", "StartArgs.CID", "string")),
        (START_ARGS, b'{"CID":[1]}', FIELD.format("array", "StartArgs.CID", "string")),
        (START_ARGS, b'{"CID":{}}', FIELD.format("object", "StartArgs.CID", "string")),
        (START_ARGS, b'{"cid":true}', FIELD.format("bool", "StartArgs.CID", "string")),
        (START_ARGS, b'{"Conf":[]}', FIELD.format("array", "StartArgs.Conf", "config.Config")),
        (START_ARGS, b'{"Spec":5}', FIELD.format("number", "StartArgs.Spec", "specs.Spec")),
        (
            START_ARGS,
            b'{"IsDevIoFilePresent":1}',
            FIELD.format("number", "StartArgs.IsDevIoFilePresent", "bool"),
        ),
        (
            START_ARGS,
            b'{"GoferMountConfs":"abcd"}',
            FIELD.format("string", "StartArgs.GoferMountConfs", "[]boot.GoferMountConf"),
        ),
        (
            START_ARGS,
            b'{"GoferMountConfs":[{"size":1}]}',
            FIELD.format("number", "GoferMountConf.GoferMountConfs.size", "string"),
        ),
        (
            START_ARGS,
            b'{"Spec":{"process":{"terminal":"x"}}}',
            FIELD.format("string", "Process.Spec.process.terminal", "bool"),
        ),
        (
            START_ARGS,
            b'{"Spec":{"process":5}}',
            FIELD.format("number", "Spec.Spec.process", "specs.Process"),
        ),
        (
            START_ARGS,
            b'{"Spec":{"mounts":[[],{"destination":5}]}}',
            FIELD.format("array", "Spec.Spec.mounts", "specs.Mount"),
        ),
        (
            START_ARGS,
            b'{"Spec":{"mounts":[{"destination":"/a"},5]}}',
            FIELD.format("number", "Spec.Spec.mounts", "specs.Mount"),
        ),
        (
            START_ARGS,
            b'{"Spec":{"mounts":[{"destination":5}]}}',
            FIELD.format("number", "Mount.Spec.mounts.destination", "string"),
        ),
        (
            START_ARGS,
            b'{"Spec":{"process":{"user":{"additionalGids":[1,"a"]}}}}',
            FIELD.format("string", "User.Spec.process.user.additionalGids", "uint32"),
        ),
        (
            START_ARGS,
            b'{"Spec":{"linux":{"sysctl":{"a":1}}}}',
            FIELD.format("number", "Linux.Spec.linux.sysctl", "string"),
        ),
        (
            START_ARGS,
            b'{"Spec":{"linux":{"sysctl":5}}}',
            FIELD.format("number", "Linux.Spec.linux.sysctl", "map[string]string"),
        ),
        (
            START_ARGS,
            b'{"Spec":{"linux":{"namespaces":[{"type":5}]}}}',
            FIELD.format(
                "number", "LinuxNamespace.Spec.linux.namespaces.type", "specs.LinuxNamespaceType"
            ),
        ),
        (
            START_ARGS,
            b'{"Spec":{"process":{"terminal":"x","oomScoreAdj":"y"}},"CID":4}',
            FIELD.format("string", "Process.Spec.process.terminal", "bool"),
        ),
        (
            START_ARGS,
            b'{"CID":true,"CID":"good"}',
            FIELD.format("bool", "StartArgs.CID", "string"),
        ),
        (START_ARGS, None, "unexpected end of JSON input"),
        (STRING, None, "unexpected end of JSON input"),
    ],
)
def test_type_errors(shape: Shape, raw: bytes | None, text: str) -> None:
    with pytest.raises(DecodeError, match=f"^{re.escape(text)}$"):
        decode(shape, raw)


@pytest.mark.parametrize(
    ("bits", "signed", "good", "bad"),
    [
        (32, True, ["0", "-0", "2147483647", "-2147483648"], ["2147483648", "-2147483649"]),
        (8, False, ["0", "255"], ["256", "-1", "-0"]),
        (64, True, ["9223372036854775807"], ["9223372036854775808", "1" * 5000]),
        (64, False, ["18446744073709551615"], ["18446744073709551616"]),
        (32, True, [], ["15.0", "1e1", "1E0", "1.5"]),
    ],
)
def test_integers(bits: int, signed: bool, good: list[str], bad: list[str]) -> None:
    shape = GoInt(bits, signed=signed)
    for literal in good:
        assert decode(shape, literal.encode()) == int(literal)
    for literal in bad:
        text = f"json: cannot unmarshal number {literal} into Go value of type {shape.name}"
        with pytest.raises(DecodeError, match=f"^{re.escape(text)}$"):
            decode(shape, literal.encode())
    assert decode(shape, b"null") == 0
    with pytest.raises(DecodeError, match="cannot unmarshal string into Go value"):
        decode(shape, b'"15"')


@pytest.mark.parametrize(
    ("shape", "raw", "value"),
    [
        (START_ARGS, b"null", ZERO_START_ARGS),
        (START_ARGS, b"{}", ZERO_START_ARGS),
        (START_ARGS, b'{"CID":null,"Files":[1],"x":{"CID":1}}', ZERO_START_ARGS),
        (START_ARGS, b'{"cid":"a"}', {**ZERO_START_ARGS, "CID": "a"}),
        (START_ARGS, b'{"requestid":"r"}', {**ZERO_START_ARGS, "RequestID": "r"}),
        (START_ARGS, b'{"cid":"a","CID":"b"}', {**ZERO_START_ARGS, "CID": "b"}),
        (START_ARGS, b'{"CID":"b","cid":"a"}', {**ZERO_START_ARGS, "CID": "a"}),
        (START_ARGS, b'{"CID":"a","CID":null}', {**ZERO_START_ARGS, "CID": "a"}),
        (
            START_ARGS,
            '{"I\u017fDevIoFilePre\u017fent":true}'.encode(),
            {**ZERO_START_ARGS, "IsDevIoFilePresent": True},
        ),
        (
            START_ARGS,
            b'{"GoferMountConfs":[{"lower":1,"upper":2,"size":"10M"},{}]}',
            {
                **ZERO_START_ARGS,
                "GoferMountConfs": [
                    {"lower": 1, "upper": 2, "size": "10M"},
                    {"lower": 0, "upper": 0, "size": ""},
                ],
            },
        ),
        (
            START_ARGS,
            b'{"Conf":{"ociseccomp":true,"Odd":[1,{"a":2}],"WatchdogAction":5},'
            b'"conf":{"FileAccess":"odd"}}',
            {
                **ZERO_START_ARGS,
                "Conf": {
                    "OCISeccomp": True,
                    "Odd": [1, {"a": 2}],
                    "WatchdogAction": 5,
                    "FileAccess": "odd",
                },
            },
        ),
        (START_ARGS, b'{"Conf":{}}', {**ZERO_START_ARGS, "Conf": {}}),
        (START_ARGS, b'{"Conf":{"a":1},"Conf":null}', ZERO_START_ARGS),
        (STRING, b"null", ""),
        (STRING, b'"c1"', "c1"),
        (NO_ARGUMENT, b"null", {}),
        (NO_ARGUMENT, b'{"a":1}', {}),
        (CREATE_ARGS, b'{"CID":"c"}', {"CID": "c", "RequestID": ""}),
        (
            SIGNAL_ARGS,
            b'{"CID":"c","Signo":9,"PID":-1,"Mode":1}',
            {"CID": "c", "Signo": 9, "PID": -1, "Mode": 1, "RequestID": ""},
        ),
        (WAIT_PID_ARGS, b'{"PID":3}', {"PID": 3, "CID": "", "RequestID": ""}),
        (SANDBOX_DELETE_ARGS, b'"s"', {"ID": "s", "Force": False, "RequestID": ""}),
        (
            SANDBOX_DELETE_ARGS,
            b'{"id":"s","force":true,"RequestID":"r"}',
            {"ID": "s", "Force": True, "RequestID": "r"},
        ),
        (SANDBOX_DELETE_ARGS, b"null", {"ID": "", "Force": False, "RequestID": ""}),
        (SANDBOX_CREATE_ARGS, b'{"ID":"s"}', {"ID": "s", **ZERO_START_ARGS}),
    ],
)
def test_values(shape: Shape, raw: bytes, value: object) -> None:
    assert decode(shape, raw) == value


@pytest.mark.parametrize(
    ("raw", "spec"),
    [
        (b"{}", {"ociVersion": ""}),
        (b'{"OCIVERSION":"1.0.2","unknown":{"a":1}}', {"ociVersion": "1.0.2"}),
        (
            b'{"PROCESS":{"Args":["a"]}}',
            {
                "ociVersion": "",
                "process": {"user": {"uid": 0, "gid": 0}, "args": ["a"], "cwd": ""},
            },
        ),
        (b'{"process":null,"linux":{},"mounts":[]}', {"ociVersion": "", "linux": {}}),
        (
            b'{"linux":{"Resources":{"Memory":{"LIMIT":0,"swap":null},"pids":{}}}}',
            {
                "ociVersion": "",
                "linux": {"resources": {"memory": {"limit": 0}, "pids": {"limit": 0}}},
            },
        ),
        (
            b'{"mounts":[{"destination":"/a","type":"bind"}],"mounts":[{"destination":"/b"}]}',
            {"ociVersion": "", "mounts": [{"destination": "/b", "type": "bind"}]},
        ),
        (
            b'{"mounts":[{"destination":"/a"},{"destination":"/c"}],"mounts":[{}]}',
            {"ociVersion": "", "mounts": [{"destination": "/a"}]},
        ),
        (
            b'{"annotations":{"a":"x","b":"y"},"annotations":{"b":"z","c":null}}',
            {"ociVersion": "", "annotations": {"a": "x", "b": "z", "c": ""}},
        ),
        (b'{"annotations":{"a":"x"},"annotations":null}', {"ociVersion": ""}),
        (
            b'{"root":{"path":"/r"},"root":{"readonly":true},"ROOT":{}}',
            {"ociVersion": "", "root": {"path": "/r", "readonly": True}},
        ),
        (
            b'{"process":{"args":["a"],"args":[null,"c"]}}',
            {
                "ociVersion": "",
                "process": {"user": {"uid": 0, "gid": 0}, "args": ["a", "c"], "cwd": ""},
            },
        ),
        (
            b'{"linux":{"rdma":{},"resources":{"rdma":{"m":{"hcaHandles":1},"m":{}}}}}',
            {"ociVersion": "", "linux": {"resources": {"rdma": {"m": {}}}}},
        ),
        (
            b'{"process":{"oomScoreAdj":0,"noNewPrivileges":false,"user":{"umask":0}}}',
            {
                "ociVersion": "",
                "process": {
                    "user": {"uid": 0, "gid": 0, "umask": 0},
                    "cwd": "",
                    "oomScoreAdj": 0,
                },
            },
        ),
    ],
)
def test_spec_is_what_go_would_marshal_again(raw: bytes, spec: object) -> None:
    assert decode(SPEC, raw) == spec


def test_a_pointer_tells_zero_from_nothing() -> None:
    shape = GoStruct("t.T", [field("a", GoPointer(GoInt(32, signed=True))), field("b", GoBool())])
    assert decode(shape, b'{"a":0}') == {"a": 0, "b": False}
    assert decode(shape, b'{"a":1,"a":null}') == {"a": None, "b": False}
    assert decode(GoSlice(GoPointer(GoString())), b'["x",null]') == ["x", None]
    assert decode(GoMap(GoPointer(GoString())), b'{"a":null,"b":""}') == {"a": None, "b": ""}


def test_unknown_parts_may_nest_as_deep_as_go_accepts() -> None:
    deep = b'{"x":' * 4_990 + b"[" * 5_000 + b"]" * 5_000 + b"}" * 4_990
    assert decode(CREATE_ARGS, b'{"CID":"c","Odd":' + deep + b"}")["CID"] == "c"
    text = 'json: config.Config member "Odd" is nested deeper than 200'
    with pytest.raises(DecodeError, match=f"^{text}$"):
        decode(START_ARGS, b'{"Conf":{"Odd":' + deep + b"}}")


def test_text_that_is_not_json() -> None:
    with pytest.raises(MalformedMessage):
        decode(STRING, b"nope")
