"""From what a client sent to what the rules judge: facts of descriptors, spec, digest."""

import hashlib
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from eventstore import Document
from manager.application.arguments import StartArguments
from manager.application.effects import Luggage
from manager.application.ports import NodePorts
from manager.application.spec_body import effective_spec, encode_spec, masked_document
from manager.domain.process_rules import SPEC_BYTES_MAX
from manager.domain.request import FdFact, StartRequest
from manager.domain.spec import Spec, parse_spec_object
from manager.urpc.fds import FdBundle

ENGINE_ID_HEX_CHARS: Final = 32


class IncomingStart(Struct, frozen=True, kw_only=True):
    """A start, ready to be judged.

    ``documents`` is the body that the log keeps; none for a call without a spec, and none for a
    spec over the limit, which is refused by its size. ``luggage`` shares the caller's ``files``;
    ``problem`` is why nothing can be done with them.
    """

    request: StartRequest
    spec: Spec | None
    luggage: Luggage
    documents: tuple[Document, ...]
    problem: str


async def read_start(arguments: StartArguments, files: FdBundle, ports: NodePorts) -> IncomingStart:
    """Look at everything a start brought; ``files`` stay the caller's."""
    described = await ports.descriptors.describe(files)
    request = StartRequest(
        cid=arguments.cid,
        conf=arguments.recorded_conf,
        num_gofer_filestore_fds=arguments.num_gofer_filestore_fds,
        is_dev_io_file_present=arguments.is_dev_io_file_present,
        is_rootfs_upper_tar_file_present=arguments.is_rootfs_upper_tar_file_present,
        gofer_mount_confs=arguments.gofer_mount_confs,
        files=described.facts,
        host_paths=arguments.host_paths,
        ignore_namespace_paths=ports.ignore_namespace_paths,
        permits=ports.permits,
        request_id=arguments.request_id,
    )
    if arguments.spec is None:
        luggage = Luggage(files=files)
        return IncomingStart(
            request=request, spec=None, luggage=luggage, documents=(), problem=described.problem
        )
    document = masked_document(arguments.spec, ports.env_key)
    body = encode_spec(effective_spec(arguments.spec, request.conf))
    request = replace(request, spec_digest=document.digest, spec_bytes=len(body))
    return IncomingStart(
        request=request,
        spec=parse_spec_object(arguments.spec),
        luggage=Luggage(spec=body, files=files),
        documents=(document,) if len(body) <= SPEC_BYTES_MAX else (),
        problem=described.problem,
    )


def without_first_file(request: StartRequest) -> tuple[FdFact | None, StartRequest]:
    """Set the first donated descriptor, a root container's terminal, apart from the others."""
    first = request.files[0] if request.files else None
    return first, replace(request, files=request.files[1:])


def engine_id_of(launch_id: str) -> str:
    """What the engine calls a container: of fixed length, and never a client's choice."""
    return hashlib.sha256(launch_id.encode()).hexdigest()[:ENGINE_ID_HEX_CHARS]
