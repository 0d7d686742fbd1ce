"""Which engine a container gets."""

from collections.abc import Iterable
from typing import Final

from manager.application.errors import NoEngine
from manager.application.settings import AUTO
from manager.domain.request import EngineFacts
from manager.schema.worker import EngineReport

AUTO_ORDER: Final = ("crun", "runc", "bwrap")
"""What ``auto`` tries, first that works."""


class Engines:
    """What the worker found out about the engines of this machine.

    Args:
        wanted: An engine's name, or ``auto``.
    """

    def __init__(self, wanted: str = AUTO) -> None:
        self._wanted = wanted
        self._reports: dict[str, EngineReport] = {}

    def learn(self, reports: Iterable[EngineReport]) -> None:
        """Replace what is known."""
        self._reports = {report.name: report for report in reports}

    def chosen(self) -> EngineFacts:
        """The engine for a new sandbox.

        Raises:
            NoEngine: The wanted one does not work here, or none does.
        """
        names = AUTO_ORDER if self._wanted == AUTO else (self._wanted,)
        problems = []
        for name in names:
            report = self._reports.get(name)
            if report is not None and report.works:
                return _facts(report)
            problems.append(f"{name}: {report.problem if report is not None else 'unknown engine'}")
        raise NoEngine(problems)

    def named(self, name: str) -> EngineFacts:
        """The engine that a sandbox was created with, whether it still works or not."""
        report = self._reports.get(name)
        return _facts(report) if report is not None else EngineFacts(name=name)

    @property
    def reports(self) -> tuple[EngineReport, ...]:
        """Everything that is known, for a person to read."""
        return tuple(self._reports.values())


def _facts(report: EngineReport) -> EngineFacts:
    return EngineFacts(
        name=report.name, version=report.version, lacks=report.lacks, why_not=report.why_not
    )
