"""What can go wrong on a urpc socket, told by what the catcher does next.

::

    UrpcFault                    root; never raised itself
    ├── UrpcError(text)          raise it in a handler: the text becomes the caller's answer
    │   ├── DecodeError          the argument does not fit its Go type; answered, handler not called
    │   ├── TooManyFiles         more than MAX_FILES; nothing was sent, nothing was kept
    │   └── UnknownMethod        no such method; answered, the connection lives
    ├── RemoteError(text)        the server answered with an error: do not retry as is
    ├── TransportError(text)     no answer: the call may or may not have been made; connect anew
    ├── MalformedMessage         the peer does not speak the protocol: close without a reply
    ├── CallerGone               nobody waits for this answer: let it pass, the server closes
    ├── PeerClosed               end of stream on a frame socket: the other process is gone
    ├── FrameError               a frame that breaks the private protocol: our bug, close
    └── FdEmpty                  an OwnedFd used after close or move: our bug
"""

from typing import Final

TOO_MANY_FILES_TEXT: Final = "too many files"
UNKNOWN_METHOD_TEXT: Final = "unknown method"
INTERNAL_ERROR_TEXT: Final = "internal error"


class UrpcFault(Exception):  # noqa: N818 - the root names a family, not one error
    """Root of everything that this package raises."""


class UrpcError(UrpcFault):
    """An answer: raised by a handler, its text is sent to the caller as it stands."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class DecodeError(UrpcError):
    """The argument does not fit its Go type; the text is encoding/json's."""


class TooManyFiles(UrpcError):  # noqa: N818 - named as gVisor's ErrTooManyFiles
    """More than MAX_FILES files on one message; every one that arrived is closed."""

    def __init__(self) -> None:
        super().__init__(TOO_MANY_FILES_TEXT)


class UnknownMethod(UrpcError):  # noqa: N818 - named as gVisor's ErrUnknownMethod
    """No handler has this name; method names match exactly, case included."""

    def __init__(self) -> None:
        super().__init__(UNKNOWN_METHOD_TEXT)


class CallerGone(UrpcFault):
    """Whoever made a call has hung up, or the server is to stop; there is no one to answer."""


class RemoteError(UrpcFault):
    """The server's error text, verbatim. It may be empty."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class TransportError(UrpcFault):
    """The call has no answer; whether it was executed is unknown. Connect anew to ask."""

    def __init__(self, method: str, cause: str) -> None:
        super().__init__(f'urpc method "{method}" failed: {cause}')
        self.method = method
        self.cause = cause


class MalformedMessage(UrpcFault):
    """Not a message of this protocol: the connection is closed without a reply."""


class PeerClosed(UrpcFault):
    """The other end of a frame socket is gone; frames received before it are all delivered."""


class FrameError(UrpcFault):
    """A frame outside the private protocol's bounds; the connection cannot go on."""


class FdEmpty(UrpcFault, ValueError):  # noqa: N818 - a state of the owner
    """The owner holds no descriptor any more: it was closed, moved or released."""

    def __init__(self) -> None:
        super().__init__("this OwnedFd is empty: it was closed, taken or released before")
