"""Calls that make an image of a sandbox, and that bring one back from it."""

import time
from collections.abc import Mapping, Sequence

import anyio.to_thread
import msgspec

from eventstore import Document
from manager.application.arguments import StartArguments
from manager.application.calls import Calls
from manager.application.effects import Luggage
from manager.application.errors import CallRefused, WorkerGone
from manager.application.incoming import read_start
from manager.application.inspection import Inspection
from manager.application.live_sandbox import LiveSandbox
from manager.application.registration import (
    IMAGE_MEDIA_TYPE,
    recorded_spec,
    register,
    until_restored,
)
from manager.domain import commands as c
from manager.domain import restore_events as r
from manager.domain.checkpoint import (
    COMPRESSION_LABEL,
    NONE,
    ImageEntry,
    ImageFacts,
    is_reserved,
)
from manager.domain.events import Event
from manager.domain.query import Pending, Refused, checkpoint_answer, restore_failure
from manager.domain.request import EngineFacts
from manager.domain.state import Container, Sandbox
from manager.schema.image import (
    ImageContainer,
    ImageMetadata,
    ImageRejected,
    encode_metadata,
    specs_of,
)
from manager.schema.node_fold import Origin
from manager.urpc.fds import FdBundle
from manager.version import __version__


class ImageCalls:
    """What can be asked about checkpoints and restores. ``calls`` does what all calls share."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._node = calls.node

    async def checkpoint(
        self,
        sandbox_id: str,
        files: FdBundle,
        origin: Origin,
        *,
        resume: bool = False,
        files_wanted: int = 1,
        labels: Mapping[str, str] | None = None,
        request_id: str = "",
    ) -> None:
        """Make an image of all that runs; returns when it is whole and on disk.

        Args:
            sandbox_id: What is saved.
            files: The file that it is written to, from its beginning; further ones stay empty.
            origin: Who asks.
            resume: Let the sandbox run on afterwards; else its containers end.
            files_wanted: How many files the call should have brought.
            labels: gVisor's metadata, of which COMPRESSION_LABEL alone counts.
            request_id: Same id, same call.

        Raises:
            CallRefused: Refused, or there is no image; then the sandbox runs on.
            NotRecorded: The log refused; nothing was done.
        """
        with files:
            described = await self._node.ports.descriptors.describe(files)
            sandbox = self._calls.live(sandbox_id)
            attempts = sandbox.state.checkpoint_attempts
            labels = labels or {}
            compression = labels.get(COMPRESSION_LABEL) or NONE
            metadata = await self._metadata(sandbox.state, compression)
            document = Document(media_type=IMAGE_MEDIA_TYPE, body=encode_metadata(metadata))
            command = c.Checkpoint(
                checkpoint_id=self._node.ports.ids.new_id(),
                engine=self._engine(sandbox.state),
                resume=resume,
                files=described.facts,
                files_wanted=files_wanted,
                files_error=described.problem,
                reserved_label=next((name for name in labels if is_reserved(name)), ""),
                image=_facts(metadata, document.digest),
                request_id=request_id,
            )
            with files.take(1 if files else 0) as first:
                luggage = Luggage(metadata=document.body, files=first)
                if not await self._calls.call(
                    sandbox, command, origin, luggage=luggage, documents=(document,)
                ):
                    return
        await self._until_checkpointed(sandbox, attempts)

    async def wait_checkpoint(self, sandbox_id: str) -> None:
        """Wait for the checkpoint that is under way, or else for the next one.

        Raises:
            CallRefused: There is no image: the text says why.

        Cancellation: safe.
        """
        sandbox = self._calls.live(sandbox_id)
        if not sandbox.state.checkpoint_id:
            await self._until_checkpointed(sandbox, sandbox.state.checkpoint_attempts)

    async def _until_checkpointed(self, sandbox: LiveSandbox, attempts: int) -> None:
        def outcome(state: Sandbox) -> Refused | bool | None:
            answer = checkpoint_answer(state, attempts)
            return None if isinstance(answer, Pending) else answer or True

        answer = await sandbox.until(outcome)
        if isinstance(answer, Refused):
            raise CallRefused(answer.error)

    async def restore(
        self,
        sandbox_id: str,
        files: FdBundle,
        origin: Origin,
        request_id: str = "",
        *,
        background: bool = False,
    ) -> None:
        """Take an image in. Its root, and with a single container the whole of it, is restored.

        Args:
            sandbox_id: What is restored.
            files: The image first; others are not looked at.
            origin: Who asks.
            request_id: Same id, same call.
            background: With the last container, return as soon as the restore of all has begun;
                `wait_restore` waits for its end.

        Raises:
            CallRefused: Refused, or failed: then the sandbox is in state restoreFailed.
            NotRecorded: The log refused; nothing was done.
        """
        with files:
            described = await self._node.ports.descriptors.describe(files)
            sandbox = self._calls.live(sandbox_id)
            node, restore_id = self._node, self._node.ports.ids.new_id()
            command = c.Restore(
                restore_id=restore_id,
                engine=self._engine(sandbox.state),
                files=described.facts,
                files_error=described.problem,
                hold_id=f"image-{restore_id}",
                at_ns=time.time_ns(),
                request_id=request_id,
                background=background,
            )
            command, documents = await self._with_image(sandbox.state, command, files)

            async def prepare(events: Sequence[Event]) -> c.Command:
                if not any(isinstance(event, r.RestoreBegun) for event in events):
                    return command
                error = await node.hold(command.hold_id, b"", files.take(1))
                return msgspec.structs.replace(command, hold_error=error)

            try:
                events = await self._calls.call(
                    sandbox, command, origin, documents=documents, prepare=prepare
                )
            finally:
                progress = sandbox.state.restore
                if progress is None or progress.hold_id != command.hold_id:
                    await node.release(command.hold_id)
        if not background and any(isinstance(event, r.RestoreValidated) for event in events):
            await until_restored(sandbox)

    async def _with_image(
        self, state: Sandbox, command: c.Restore, files: FdBundle
    ) -> tuple[c.Restore, tuple[Document, ...]]:
        root = state.container(state.id)
        if not files or root is None or root.intent is None:
            return command, ()
        if command.files[0].kind != "regular":
            error = "failed to open state file: it must be a regular file"
            return msgspec.structs.replace(command, image_error=error), ()
        descriptors = self._node.ports.descriptors
        try:
            read = await anyio.to_thread.run_sync(descriptors.read_image, files)
        except ImageRejected as error:
            return msgspec.structs.replace(command, image_error=str(error)), ()
        except OSError as error:
            text = f"failed to open state file: {error.strerror}"
            return msgspec.structs.replace(command, image_error=text), ()
        document = Document(media_type=IMAGE_MEDIA_TYPE, body=read.body)
        whole = msgspec.structs.replace(
            command,
            image=_facts(read.metadata, document.digest),
            spec_object=await recorded_spec(self._node, root.intent.request),
            image_specs=specs_of(read.metadata),
        )
        return whole, (document,)

    async def restore_subcontainer(
        self, sandbox_id: str, arguments: StartArguments, files: FdBundle, origin: Origin
    ) -> None:
        """Register one container; with the last one, returns when all of them go on.

        If the restore was begun in the background, that is when their restore has begun.

        Raises:
            CallRefused: Refused, or the restore of all failed.
            NotRecorded: The log refused; nothing was kept.
        """
        with files:
            node = self._node
            incoming = await read_start(arguments, files, node.ports)
            sandbox = self._calls.live(sandbox_id)
            command = c.RestoreSubcontainer(
                request=incoming.request,
                spec=incoming.spec,
                engine=self._engine(sandbox.state),
                launch_id=node.ports.ids.new_id(),
                hold_error=incoming.problem,
            )
            await register(self._calls, sandbox, command, incoming, origin)

    async def wait_restore(self, sandbox_id: str) -> None:
        """Wait until a sandbox is restored.

        Raises:
            CallRefused: It is not being restored, or it failed.

        Cancellation: safe.
        """
        sandbox = self._calls.live(sandbox_id)
        try:
            await until_restored(sandbox)
        except CallRefused:
            if failure := restore_failure(sandbox.state):
                raise CallRefused(failure) from None
            raise

    def savings_ns(self, sandbox_id: str) -> tuple[int, int]:
        """Processor and wall time that the restore has saved; zeros where there was none."""
        return self._calls.live(sandbox_id).state.savings_ns

    def _engine(self, state: Sandbox) -> EngineFacts:
        root = state.containers[state.id].intent
        return self._node.engines.named(root.engine if root is not None else "")

    async def _metadata(self, state: Sandbox, compression: str) -> ImageMetadata:
        running = [found for found in state.containers.values() if found.status == "running"]
        root = state.containers.get(state.id)
        engine, now_ns = self._engine(state), time.time_ns()
        started = root.launched.started_at_ns if root is not None and root.launched else now_ns
        return ImageMetadata(
            sandtrail=__version__,
            engine=engine.name,
            engine_version=engine.version,
            container_count=len(running),
            containers=tuple([await self._container(state, found) for found in running]),
            compression=compression,
            cpu_ns=await self._cpu_ns(state.id),
            wall_ns=now_ns - started,
            taken_ns=now_ns,
        )

    async def _container(self, state: Sandbox, found: Container) -> ImageContainer:
        intent = found.intent
        assert intent is not None, "what runs has an intent"
        spec = await recorded_spec(self._node, intent.request)
        return ImageContainer(
            name=intent.name,
            cid=found.cid,
            engine_id=intent.engine_id,
            root=found.cid == state.id,
            spec=msgspec.Raw(msgspec.json.encode(spec)),
        )

    async def _cpu_ns(self, sandbox_id: str) -> int:
        """What its containers have used so far; nothing if nobody can tell: no image waits."""
        try:
            usages = await Inspection(self._node).usages(sandbox_id)
        except WorkerGone:
            return 0
        return sum(usage.cpu_ns or 0 for usage in usages.values())


def _facts(metadata: ImageMetadata, digest: str) -> ImageFacts:
    return ImageFacts(
        digest=digest,
        sandtrail=metadata.sandtrail,
        engine=metadata.engine,
        engine_version=metadata.engine_version,
        container_count=metadata.container_count,
        containers=None
        if metadata.containers is None
        else tuple(
            ImageEntry(name=found.name, cid=found.cid, engine_id=found.engine_id, root=found.root)
            for found in metadata.containers
        ),
        network=metadata.network,
        compression=metadata.compression,
        cpu_ns=metadata.cpu_ns,
        wall_ns=metadata.wall_ns,
        taken_ns=metadata.taken_ns,
    )
