"""A sandbox of two containers that is started, saved, or brought back from an image."""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import msgspec

from eventstore import Actor, Document
from manager.application.default_spec import default_spec
from manager.application.registration import IMAGE_MEDIA_TYPE
from manager.application.spec_body import masked_document
from manager.demo.node_story import CONF, Step, Story
from manager.domain import commands as c
from manager.domain.checkpoint import ImageEntry, ImageFacts
from manager.domain.exit_status import Signaled
from manager.domain.request import EngineFacts, FdFact, StartRequest
from manager.domain.spec import parse_spec_object
from manager.schema.image import ImageContainer, ImageMetadata, encode_metadata
from manager.version import __version__

ENGINE: Final = EngineFacts(name="runsc", version="release-20260112.0")
NAME: Final = "io.kubernetes.cri.container-name"
ENV_KEY: Final = b"demo"
"""Values of environments are masked with it; there are none but a PATH."""
DEVICE: Final = 66_305
SIGKILL, SIGHUP = 9, 1
SpecObject = dict[str, Any]


class Image(NamedTuple):
    """What a checkpoint leaves: its metadata, as facts and as they are kept, and its specs."""

    facts: ImageFacts
    document: Document
    specs: dict[str, SpecObject]


def service_spec(name: str, args: list[str], *, readonly: bool = True) -> SpecObject:
    """A container; whether it can write to its own files is what its new version may change."""
    spec = default_spec(args=args, readonly=readonly)
    return {**spec, "annotations": {NAME: name}}


class Deployment:
    """The calls about one sandbox, and what is reported of it.

    Args:
        story: Gives ids, times and chance.
        sandbox_id: The sandbox.
        cid: The container in it that matters.
        spec: That container's.
    """

    def __init__(self, story: Story, sandbox_id: str, cid: str, spec: SpecObject) -> None:
        self.id = sandbox_id
        self._story = story
        self._cid = cid
        self._specs = {"root": service_spec("root", ["/bin/pause"]), cid: spec}
        self._launches = {sandbox_id: story.new_id(), cid: story.new_id()}

    def create(self, actor: Actor, policy: int) -> Iterator[Step]:
        """Register the sandbox; how it may be restored is decided here."""
        request, document = self._request(self.id, "root", policy)
        launch_id = self._launches[self.id]
        command = c.CreateSandbox(
            sandbox_id=self.id,
            request=request,
            spec=parse_spec_object(self._specs["root"]),
            engine=ENGINE,
            launch_id=launch_id,
            engine_id=_engine_id(launch_id),
            hold_id=f"fds-{launch_id}",
        )
        yield Step(self.id, command, actor, (document,))

    def start(self, actor: Actor, policy: int) -> Iterator[Step]:
        """Run both containers."""
        yield Step(self.id, c.StartRoot(request_id=self._story.new_id()), actor)
        yield self._started(self.id)
        yield Step(self.id, c.CreateSubcontainer(cid=self._cid), actor)
        request, document = self._request(self._cid, self._cid, policy)
        launch_id = self._launches[self._cid]
        command = c.StartSubcontainer(
            request=request,
            spec=parse_spec_object(self._specs[self._cid]),
            engine=ENGINE,
            launch_id=launch_id,
            engine_id=_engine_id(launch_id),
        )
        yield Step(self.id, command, actor, (document,))
        yield self._started(self._cid)

    def save(self, actor: Actor, image: Image) -> Iterator[Step]:
        """Make an image; the containers end."""
        checkpoint_id = self._story.new_id()
        command = c.Checkpoint(
            checkpoint_id=checkpoint_id,
            engine=ENGINE,
            files=(self._file("regular", "rw"),),
            image=image.facts,
            request_id=self._story.new_id(),
        )
        yield Step(self.id, command, actor, (image.document,))
        report = c.ReportSaved(
            checkpoint_id=checkpoint_id,
            image_bytes=self._story.random.randrange(20, 60) * 4096,
            digest=image.facts.digest.removeprefix("sha256:"),
            resumed=False,
        )
        yield Step(self.id, report)
        yield from (self._ended(cid) for cid in self._launches)

    def delete(self, actor: Actor) -> Iterator[Step]:
        """Remove it."""
        command = c.DeleteSandbox(sandbox_id=self.id, force=True, request_id=self._story.new_id())
        yield Step(self.id, command, actor)
        for launch_id in self._launches.values():
            yield Step(self.id, c.ReportDestroyed(launch_id=launch_id))

    def restore(self, actor: Actor, policy: int, image: Image) -> Iterator[Step]:
        """Take an image in, and register the other container with it."""
        launch_id = self._launches[self.id]
        command = c.Restore(
            restore_id=self._story.new_id(),
            engine=ENGINE,
            files=(self._file("regular", "r"),),
            image=image.facts,
            hold_id=f"image-{launch_id}",
            spec_object=self._specs["root"],
            image_specs=image.specs,
            at_ns=self._story.clock(),
            request_id=self._story.new_id(),
        )
        yield Step(self.id, command, actor, (image.document,))
        yield Step(self.id, c.CreateSubcontainer(cid=self._cid), actor)
        yield self.register(actor, policy, image)

    def register(self, actor: Actor, policy: int, image: Image) -> Step:
        """The call that completes a restore, or that fails it."""
        request, document = self._request(self._cid, self._cid, policy)
        launch_id = self._launches[self._cid] = self._story.new_id()
        command = c.RestoreSubcontainer(
            request=request,
            spec=parse_spec_object(self._specs[self._cid]),
            engine=ENGINE,
            launch_id=launch_id,
            hold_id=f"fds-{launch_id}",
            spec_object=self._specs[self._cid],
            image_specs=image.specs,
        )
        return Step(self.id, command, actor, (document,))

    def resumed(self) -> Iterator[Step]:
        """Both containers go on where the image was made."""
        yield from (self._started(cid) for cid in self._launches)

    def hang_up(self, actor: Actor) -> Iterator[Step]:
        """Have it open its files anew."""
        kill_id = self._story.new_id()
        command = c.Signal(cid=self._cid, signo=SIGHUP, pid=0, mode=0, kill_id=kill_id)
        yield Step(self.id, command, actor)
        yield Step(self.id, c.ReportKilled(kill_id=kill_id))

    def image(self) -> Image:
        """What a checkpoint of it would leave now."""
        names = {self.id: "root", self._cid: self._cid}
        containers = tuple(
            ImageContainer(
                name=name,
                cid=cid,
                engine_id=_engine_id(self._launches[cid]),
                spec=msgspec.Raw(masked_document(self._specs[name], ENV_KEY).body),
                root=cid == self.id,
            )
            for cid, name in names.items()
        )
        metadata = ImageMetadata(
            sandtrail=__version__,
            engine=ENGINE.name,
            engine_version=ENGINE.version,
            container_count=len(containers),
            containers=containers,
            cpu_ns=3_400_000_000,
            wall_ns=86_400_000_000_000,
            taken_ns=self._story.clock(),
        )
        document = Document(media_type=IMAGE_MEDIA_TYPE, body=encode_metadata(metadata))
        facts = ImageFacts(
            digest=document.digest,
            sandtrail=metadata.sandtrail,
            engine=metadata.engine,
            engine_version=metadata.engine_version,
            container_count=metadata.container_count,
            containers=tuple(
                ImageEntry(name=each.name, cid=each.cid, engine_id=each.engine_id, root=each.root)
                for each in containers
            ),
            cpu_ns=metadata.cpu_ns,
            wall_ns=metadata.wall_ns,
            taken_ns=metadata.taken_ns,
        )
        return Image(facts, document, dict(self._specs))

    def _request(self, cid: str, name: str, policy: int) -> tuple[StartRequest, Document]:
        document = masked_document(self._specs[name], ENV_KEY)
        streams = (self._file("fifo", access) for access in ("r", "w", "w"))
        request = StartRequest(
            cid=cid,
            spec_digest=document.digest,
            spec_bytes=len(document.body),
            conf={**CONF, "RestoreSpecValidation": policy},
            files=(*streams, self._file("directory", "path")),
            request_id=self._story.new_id(),
        )
        return request, document

    def _file(self, kind: Any, access: Any) -> FdFact:
        inode = self._story.random.getrandbits(24)
        return FdFact(kind=kind, access=access, device=DEVICE, inode=inode)

    def _started(self, cid: str) -> Step:
        launched = msgspec.structs.replace(
            self._story.launched(), engine=ENGINE.name, engine_version=ENGINE.version
        )
        phases = {"mounts": 1_100, "create": 9_400, "start": 2_300}
        report = c.ReportStarted(launch_id=self._launches[cid], launched=launched, phases_us=phases)
        return Step(self.id, report)

    def _ended(self, cid: str) -> Step:
        report = c.ReportExited(
            launch_id=self._launches[cid],
            exit=Signaled(signal=SIGKILL),
            source="waitid",
            exited_at_ns=self._story.clock(),
        )
        return Step(self.id, report)


def _engine_id(launch_id: str) -> str:
    return launch_id.replace("-", "")
