"""Where things lie in a state directory. These names never change."""

from typing import Final

LOG_FILE: Final = "events.db"
SNAPSHOT_DIRECTORY: Final = "snapshots"
"""Beside the log."""
SEAL_KEY_FILE: Final = "keys/log.key"
PUBLIC_SUFFIX: Final = ".pub"
"""Of a key's other half, beside it."""
