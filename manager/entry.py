"""Where the ``sandtrail`` command begins: from here on Ctrl-C ends it without a traceback.

While modules are imported, and after the command has ended, the signal has the effect that it has
on programs in other languages: the shell sees 130 and nothing is printed. An import that is
interrupted can fail in any way.
"""

import signal


def main() -> None:
    """Run the command line; the process exits with its status."""
    # Ignored, as of a program that a script put into the background, it stays ignored.
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        _run()
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        _run()
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _run() -> None:
    from manager.cli import main as run  # noqa: PLC0415 - it takes a while, see above

    run()
