"""Registering a container of an image: what a restore of it needs beside what a start needs."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import msgspec
from msgspec.structs import replace

from eventstore import Document, EventStoreError
from manager.application.errors import CallRefused, NotRecorded
from manager.application.incoming import IncomingStart
from manager.application.live_sandbox import LiveSandbox
from manager.application.node import Node
from manager.domain import commands as c
from manager.domain import restore_events as r
from manager.domain.events import Event
from manager.domain.query import Pending, Refused, restore_answer
from manager.domain.request import StartRequest
from manager.domain.state import Sandbox
from manager.schema.image import ImageMetadata, specs_of
from manager.schema.node_fold import Origin

IMAGE_MEDIA_TYPE = "application/vnd.sandtrail.image-metadata.v1+json"

Command = c.RestoreSubcontainer | c.StartSubcontainer
SpecObject = dict[str, object]
Prepare = Callable[[Sequence[Event]], Awaitable[c.Command]]


class Caller(Protocol):
    """Who carries commands out: the calls of a node."""

    node: Node

    async def call(
        self,
        sandbox: LiveSandbox,
        command: c.ClientCommand,
        origin: Origin,
        *,
        documents: Sequence[Document] = (),
        prepare: Prepare | None = None,
    ) -> tuple[Event, ...]:
        """Carry a client's command out; raises CallRefused."""
        ...


async def register(
    calls: Caller,
    sandbox: LiveSandbox,
    command: Command,
    incoming: IncomingStart,
    origin: Origin,
) -> None:
    """Register a container to be restored; with the last one, wait until all of them go on.

    In the background nobody waits: the restore of all has begun then.

    Raises:
        CallRefused: Refused, or the restore of all failed.
        NotRecorded: The log cannot be read, or refused.
    """
    node, state = calls.node, sandbox.state
    now = msgspec.json.decode(incoming.documents[0].body) if incoming.documents else None
    before: dict[str, SpecObject] = {}
    if state.restore is not None:
        before = specs_of(await _image_metadata(node, state.restore.image.digest))
    hold_id = f"fds-{command.launch_id}"
    whole = replace(command, hold_id=hold_id, spec_object=now, image_specs=before)

    async def prepare(events: Sequence[Event]) -> c.Command:
        return await _hold(node, whole, events, incoming)

    try:
        events = await calls.call(
            sandbox, whole, origin, documents=incoming.documents, prepare=prepare
        )
    finally:
        await node.release_unless_kept(sandbox, hold_id)
    background = state.restore is not None and state.restore.background
    if not background and any(isinstance(event, r.RestoreValidated) for event in events):
        await until_restored(sandbox)


async def _hold(
    node: Node, command: Command, events: Sequence[Event], incoming: IncomingStart
) -> Command:
    """Bring the descriptors of an accepted registration to safety before it is recorded."""
    accepted = next((e for e in events if isinstance(e, r.ContainerRestoreAccepted)), None)
    if accepted is None:
        return command
    try:
        files = incoming.luggage.files.take_all()
        prepared = node.ports.descriptors.prepare(accepted.intent.plan, files)
    except OSError as problem:
        text = f"a donated file cannot be used: {problem.strerror}"
        return replace(command, hold_error=text)
    error = await node.hold(command.hold_id, incoming.luggage.spec, prepared)
    return replace(command, hold_error=error)


async def until_restored(sandbox: LiveSandbox) -> None:
    """Wait for the outcome of a restore; raises CallRefused if it failed, or there is none."""

    def outcome(state: Sandbox) -> Refused | bool | None:
        answer = restore_answer(state)
        return None if isinstance(answer, Pending) else answer or True

    answer = await sandbox.until(outcome)
    if isinstance(answer, Refused):
        raise CallRefused(answer.error)


async def _image_metadata(node: Node, digest: str) -> ImageMetadata:
    """The metadata of an image that a restore was begun with, as the log keeps it.

    Raises:
        NotRecorded: The log cannot be read.
    """
    return msgspec.json.decode(await _body(node, digest), type=ImageMetadata)


async def recorded_spec(node: Node, request: StartRequest) -> SpecObject:
    """The spec of an accepted start, as the log keeps it.

    Raises:
        NotRecorded: The log cannot be read.
    """
    return msgspec.json.decode(await _body(node, request.spec_digest), type=SpecObject)


async def _body(node: Node, digest: str) -> bytes:
    try:
        return (await node.ports.log.document(digest)).body
    except EventStoreError as error:
        raise NotRecorded(str(error)) from error
