"""Which program this is."""

from importlib.metadata import PackageNotFoundError, version


def program_version() -> str:
    """The installed version, or that of a source tree."""
    try:
        return version("sandtrail")
    except PackageNotFoundError:
        return "0+source"
