"""Headless Chromium over its debugging pipe: enough of it to look at one page."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

COMMANDS_FD, ANSWERS_FD = 3, 4


class Tab:
    """A page in the browser; what it complains of is in ``events``."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands = commands
        self._answers = answers
        self._rest = b""
        self._last = 0
        self._session: dict[str, str] = {}
        self.events: list[dict[str, Any]] = []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        attached = self.ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **params: Any) -> Any:
        """Send a command and wait for its answer."""
        self._last += 1
        command = {"id": self._last, "method": method, "params": params, **self._session}
        os.write(self._commands, json.dumps(command).encode() + b"\0")
        while True:
            message = self._next()
            if message.get("id") == self._last:
                assert "error" not in message, message
                return message["result"]

    def wait_for(self, method: str) -> None:
        """Wait for an event that may have come already."""
        while all(each["method"] != method for each in self.events):
            self._next()

    def value(self, expression: str) -> Any:
        """What an expression of JavaScript is in the page."""
        found = self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"]["value"]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            chunk = os.read(self._answers, 1 << 16)
            assert chunk, "the browser is gone"
            self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        if "method" in message:
            self.events.append(message)
        return message


@contextmanager
def open_tab(profile: Path) -> Iterator[Tab]:
    """A browser with one tab, ended with the context."""
    their_commands, commands = os.pipe()
    answers, their_answers = os.pipe()
    # The shell gives the pipes the numbers that the browser expects.
    script = f'exec chromium "$@" {COMMANDS_FD}<&{their_commands} {ANSWERS_FD}>&{their_answers}'
    process = subprocess.Popen(
        ["/bin/bash", "-c", script, "chromium", "--headless", "--no-sandbox", "--disable-gpu",
         "--remote-debugging-pipe", f"--user-data-dir={profile}"],
        pass_fds=(their_commands, their_answers), stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(their_commands)
    os.close(their_answers)
    try:
        tab = Tab(commands, answers)
        yield tab
        tab.ask("Page.close")
    finally:
        os.close(commands)
        os.close(answers)
        process.terminate()
        process.wait()
