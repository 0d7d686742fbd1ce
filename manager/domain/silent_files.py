"""Donated files whose file system does not answer: what a call with one of them is refused with."""

from typing import Final

_SILENT: Final = ": its file system does not answer"


def silent_file(index: int) -> str:
    """The text by which a call is refused of which that file, counted from 0, is silent."""
    return f"donated file {index}{_SILENT}"


def is_silence(error: str) -> bool:
    """Whether a call was refused for that."""
    return error.endswith(_SILENT)
