"""What a decision was taken on, beside the state: bodies that the log keeps, and engines then."""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, Final, Generic, TypeAlias, TypeVar

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from eventstore import DocumentNotFound, EventLog, RecordedEvent
from manager.domain import events as e
from manager.domain import restore_events as r
from manager.domain.events import Event
from manager.domain.process_rules import SPEC_BYTES_MAX
from manager.domain.request import EngineFacts, StartRequest
from manager.domain.spec import Process, Spec, parse_spec_object
from manager.domain.state import Sandbox
from manager.schema.image import ImageMetadata, specs_of
from manager.schema.node_events import WorkerStarted, decode_node_event

T = TypeVar("T")
SpecObject: TypeAlias = dict[str, Any]
ImageSpecs: TypeAlias = dict[str, SpecObject]
HAVE_BODIES: Final[frozenset[type[Event]]] = frozenset(
    {
        e.SandboxCreated,
        e.SandboxCreateRejected,
        e.ContainerStartAccepted,
        e.ContainerStartRejected,
        e.ContainerRestoreRejected,
        r.ContainerRestoreAccepted,
        r.RestoreBegun,
        r.SandboxRestoreFailed,
    }
)
"""Events that name bodies which the log has beside them."""
BODIES_BYTES_MAX: Final = 16 * 1024 * 1024
"""How much of the log's bodies of one kind is kept in memory, decoded: containers share them."""


class FactMissing(Exception):  # noqa: N818 - not an error: the decision cannot be taken again
    """The log does not have what a decision was taken on; the text says what."""


class SpecBody(Struct, frozen=True, kw_only=True):
    """A spec as it was recorded (env values masked), and as the rules read it."""

    object: SpecObject
    spec: Spec


class Facts(Struct, frozen=True, kw_only=True):
    """Everything from outside the state that one decision needs.

    ``specs`` are bodies by digest, ``image_specs`` those of an image by the digest of its metadata;
    ``engines`` are the engines as the worker of that time reported them.
    """

    specs: dict[str, SpecBody] = {}
    image_specs: dict[str, ImageSpecs] = {}
    engines: dict[str, EngineFacts] = {}

    def spec_object(self, request: StartRequest) -> SpecObject | None:
        """The recorded body of a request's spec; ``None`` if the call had none."""
        body = self.specs.get(request.spec_digest)
        return None if body is None else body.object

    def spec(self, request: StartRequest) -> Spec | None:
        """The same, as the rules read it; of one that was too large to be kept only that it was."""
        if request.spec_bytes > SPEC_BYTES_MAX:
            return Spec(process=Process())
        body = self.specs.get(request.spec_digest)
        return None if body is None else body.spec

    def engine(self, name: str, version: str | None = None) -> EngineFacts:
        """An engine as it was, with the version that an intent names if it names one."""
        found = self.engines.get(name, EngineFacts(name=name))
        if version is None or version == found.version:
            return found
        return replace(found, version=version)


class _Bodies(Generic[T]):
    """Bodies of one kind, read once."""

    def __init__(self, log: EventLog, what: str, read: Callable[[bytes], T]) -> None:
        self._log = log
        self._what = what
        self._read = read
        self._kept: OrderedDict[str, tuple[T, int]] = OrderedDict()
        self._bytes = 0

    async def of(self, digests: Iterable[str]) -> dict[str, T]:
        """The bodies that have these digests; raises as :meth:`FactReader.of`."""
        return {digest: await self._one(digest) for digest in digests}

    async def _one(self, digest: str) -> T:
        if digest in self._kept:
            self._kept.move_to_end(digest)
            return self._kept[digest][0]
        found, size = self._kept[digest] = await self._load(digest)
        self._bytes += size
        while self._bytes > BODIES_BYTES_MAX:
            _, (_, size) = self._kept.popitem(last=False)
            self._bytes -= size
        return found

    async def _load(self, digest: str) -> tuple[T, int]:
        try:
            body = (await self._log.document(digest)).body
        except DocumentNotFound:
            raise FactMissing(f"{self._what} {digest} is not in the log") from None
        try:
            return self._read(body), len(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise FactMissing(f"{self._what} {digest} cannot be read: {error}") from error


class FactReader:
    """Reads the facts of decisions out of a log, in its order."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._plain = Facts()
        self._specs = _Bodies(log, "the spec", _spec_body)
        self._images = _Bodies(log, "the metadata of the image", _image_specs)

    def learn(self, record: RecordedEvent) -> None:
        """Take in an event of the node's own stream."""
        if record.type != "worker.started":
            return
        event = decode_node_event(record.type, record.data)
        if isinstance(event, WorkerStarted):
            engines = {
                each.name: EngineFacts(
                    name=each.name,
                    version=each.version,
                    lacks=each.lacks,
                    why_not=each.why_not,
                )
                for each in event.engines
            }
            self._plain = Facts(engines=engines)

    async def catch_up(self, before: int) -> None:
        """Learn what held at a position: the last report of engines before it."""
        types = ("worker.started",)
        async for record in self._log.read(until=before, types=types, backwards=True, limit=1):
            self.learn(record)

    async def of(self, state: Sandbox, events: Iterable[Event]) -> Facts:
        """The facts of a decision that these events came of.

        Raises:
            FactMissing: The log does not have them.
            EventStoreError: The log cannot be read.
        """
        if not any(type(event) in HAVE_BODIES for event in events):
            return self._plain
        specs = await self._specs.of(_spec_digests(state, events))
        images = await self._images.of(_image_digests(state, events))
        return replace(self._plain, specs=specs, image_specs=images)


def _spec_body(body: bytes) -> SpecBody:
    value = msgspec.json.decode(body, type=SpecObject)
    return SpecBody(object=value, spec=parse_spec_object(value))


def _image_specs(body: bytes) -> ImageSpecs:
    return specs_of(msgspec.json.decode(body, type=ImageMetadata))


def _spec_digests(state: Sandbox, events: Iterable[Event]) -> set[str]:
    digests: set[str] = set()
    for event in events:
        match event:
            case (
                e.SandboxCreated(intent=intent)
                | e.ContainerStartAccepted(intent=intent)
                | r.ContainerRestoreAccepted(intent=intent)
                | r.RestoreBegun(root_intent=intent)
            ):
                digests.add(intent.request.spec_digest)
            case (
                e.SandboxCreateRejected(request=request)
                | e.ContainerStartRejected(request=request)
                | e.ContainerRestoreRejected(request=request)
            ) if request.spec_bytes <= SPEC_BYTES_MAX:
                digests.add(request.spec_digest)
            case r.SandboxRestoreFailed(image=image) if image is not None:
                root = state.container(state.id)
                if root is not None and root.intent is not None:
                    digests.add(root.intent.request.spec_digest)
    return digests - {""}


def _image_digests(state: Sandbox, events: Iterable[Event]) -> set[str]:
    digests: set[str] = set()
    for event in events:
        match event:
            case r.RestoreBegun(image=image) | r.SandboxRestoreFailed(image=image):
                digests.add(image.digest if image is not None else "")
            case r.ContainerRestoreAccepted() | e.ContainerRestoreRejected():
                digests.add(state.restore.image.digest if state.restore is not None else "")
    return digests - {""}
