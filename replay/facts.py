"""What a decision was taken on, beside the state: bodies that the log keeps, and engines then."""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, Final, TypeAlias

import msgspec
from msgspec import Struct

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

SpecObject: TypeAlias = dict[str, Any]
BODIES_KEPT_MAX: Final = 256
"""Bodies that are kept in memory: containers of a kind share one."""


class FactMissing(Exception):  # noqa: N818 - not an error: the decision cannot be taken again
    """The log does not have what a decision was taken on; the text says what."""


class Facts(Struct, frozen=True, kw_only=True):
    """Everything from outside the state that one decision needs.

    ``specs`` are bodies by digest (env values masked), ``image_specs`` those of an image by the
    digest of its metadata; ``engines`` are the engines as the worker of that time reported them.
    """

    specs: dict[str, SpecObject] = {}
    image_specs: dict[str, dict[str, SpecObject]] = {}
    engines: dict[str, EngineFacts] = {}

    def spec_object(self, request: StartRequest) -> SpecObject | None:
        """The recorded body of a request's spec; ``None`` if the call had none."""
        return self.specs.get(request.spec_digest)

    def spec(self, request: StartRequest) -> Spec | None:
        """The same, as the rules read it; of one that was too large to be kept only that it was."""
        if request.spec_bytes > SPEC_BYTES_MAX:
            return Spec(process=Process())
        body = self.spec_object(request)
        return None if body is None else parse_spec_object(body)

    def engine(self, name: str, version: str | None = None) -> EngineFacts:
        """An engine as it was, with the version that an intent names if it names one."""
        found = self.engines.get(name, EngineFacts(name=name))
        if version is None or version == found.version:
            return found
        return msgspec.structs.replace(found, version=version)


class FactReader:
    """Reads the facts of decisions out of a log, in its order."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._engines: dict[str, EngineFacts] = {}
        self._bodies: OrderedDict[str, bytes | None] = OrderedDict()

    def learn(self, record: RecordedEvent) -> None:
        """Take in an event of the node's own stream."""
        if record.type != "worker.started":
            return
        event = decode_node_event(record.type, record.data)
        if isinstance(event, WorkerStarted):
            self._engines = {
                each.name: EngineFacts(
                    name=each.name,
                    version=each.version,
                    lacks=each.lacks,
                    why_not=each.why_not,
                )
                for each in event.engines
            }

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
        specs: dict[str, SpecObject] = {}
        images: dict[str, dict[str, SpecObject]] = {}
        for digest in _spec_digests(state, events):
            specs[digest] = await self._json(digest, "the spec", SpecObject)
        for digest in _image_digests(state, events):
            found = await self._json(digest, "the metadata of the image", ImageMetadata)
            images[digest] = specs_of(found)
        return Facts(specs=specs, image_specs=images, engines=self._engines)

    async def _json(self, digest: str, what: str, kind: Any) -> Any:
        body = await self._body(digest)
        if body is None:
            raise FactMissing(f"{what} {digest} is not in the log")
        try:
            return msgspec.json.decode(body, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise FactMissing(f"{what} {digest} cannot be read: {error}") from error

    async def _body(self, digest: str) -> bytes | None:
        if digest in self._bodies:
            self._bodies.move_to_end(digest)
            return self._bodies[digest]
        try:
            body = (await self._log.document(digest)).body
        except DocumentNotFound:
            body = None
        self._bodies[digest] = body
        if len(self._bodies) > BODIES_KEPT_MAX:
            self._bodies.popitem(last=False)
        return body


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
