"""Every bound that the store enforces, in one place, so that callers can plan for them."""

from typing import Final

APPEND_EVENTS_MAX: Final = 1024
"""Events in one append: they become one transaction, whole or not at all."""
APPEND_BYTES_MAX: Final = 64 * 1024 * 1024
"""Bytes of one append: payloads, documents and EVENT_OVERHEAD_BYTES for each event."""
EVENT_DATA_BYTES_MAX: Final = 16 * 1024 * 1024
"""Bytes of one payload; what is larger belongs into a document."""
EVENT_DOCUMENTS_MAX: Final = 64
"""Documents of one event."""
DOCUMENT_BYTES_MAX: Final = 32 * 1024 * 1024
"""Bytes of one document's body."""
EVENT_OVERHEAD_BYTES: Final = 512
"""What an event is taken to weigh beside its payload: envelope, indexes, objects in memory."""

STREAM_NAME_CHARS_MAX: Final = 256
EVENT_TYPE_CHARS_MAX: Final = 128
EVENT_ID_CHARS_MAX: Final = 64
CORRELATION_ID_CHARS_MAX: Final = 256
MEDIA_TYPE_CHARS_MAX: Final = 256
POSITION_MAX: Final = 2**63 - 1
"""The largest integer that SQLite can hold."""

BATCH_EVENTS_MAX: Final = 1024
"""Events in one group commit; an append is never split."""
BATCH_BYTES_MAX: Final = 4 * 1024 * 1024
"""Bytes at which a group commit takes no further append; a larger one goes alone."""
PENDING_BYTES_MAX: Final = APPEND_BYTES_MAX
"""Bytes of all appends under way; beyond it an append waits before it is queued."""

READ_CHUNK_EVENTS: Final = 1024
"""Events that one visit to the file fetches, which is also how long a read transaction lasts."""
READ_CHUNK_BYTES_MAX: Final = 8 * 1024 * 1024
"""Payload bytes at which a visit ends early."""
READ_SCAN_EVENTS: Final = 16_384
"""Events that one visit looks at, at most, when it looks for some of them: some milliseconds."""

IDEMPOTENCY_WINDOW_EVENTS: Final = 32_768
"""How many of the newest event ids are surely remembered in memory."""
NAMES_CACHED_MAX: Final = 65_536
"""Streams whose name and version are remembered in memory."""
