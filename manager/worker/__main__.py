"""The worker's entry: `python -m manager.worker --state DIR [--engine-path NAME=PATH …]`."""

import argparse
import logging
import resource
import sys
from pathlib import Path

from manager.worker.errors import StateDirTaken
from manager.worker.service import serve


def main() -> int:
    """Serve until asked to stop.

    Returns:
        0; 1 if another worker serves this directory, 2 (by argparse) for wrong arguments.
    """
    parser = argparse.ArgumentParser(prog="sandtrail-worker", description=__doc__)
    parser.add_argument("--state", type=Path, required=True, help="directory of the service")
    parser.add_argument(
        "--engine-path",
        type=_engine_path,
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="the program of an engine (crun, runc, runsc, bwrap), or criu, and not that in PATH",
    )
    parser.add_argument(
        "--open-files",
        type=int,
        metavar="N",
        help="soft limit of open files that containers are to get, instead of this process's",
    )
    arguments = parser.parse_args()
    if arguments.open_files is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (arguments.open_files, hard))
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(message)s",
        stream=sys.stderr,
    )
    try:
        serve(arguments.state.resolve(), dict(arguments.engine_path))
    except StateDirTaken as error:
        logging.getLogger(__name__).warning("worker.not_started %s", error)
        return 1
    return 0


def _engine_path(text: str) -> tuple[str, Path]:
    name, separator, path = text.partition("=")
    if not separator or not Path(path).is_absolute():
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=/ABSOLUTE/PATH")
    return name, Path(path)


if __name__ == "__main__":
    sys.exit(main())
