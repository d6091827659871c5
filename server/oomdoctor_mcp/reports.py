"""The last results, complete, so that a concise answer loses nothing."""

from __future__ import annotations

import json
from collections import OrderedDict
from typing import Any, NamedTuple

from oomdoctor_mcp.jobs import MAX_FINISHED, Job

MAX_BYTES = 32 << 20


class Report(NamedTuple):
    id: str
    tool: str
    text: str
    """The value as the command line printed it, as JSON."""


class Reports:
    """The newest results, at most :data:`MAX_FINISHED` of them and at most :data:`MAX_BYTES` in all."""

    def __init__(self) -> None:
        self._reports: OrderedDict[str, Report] = OrderedDict()

    def __len__(self) -> int:
        return len(self._reports)

    def keep(self, job: Job) -> None:
        """Keeps the result of a job that has one."""
        if job.value is None:
            return
        self._reports[job.id] = Report(job.id, job.tool, json.dumps(job.value, ensure_ascii=False))
        while len(self._reports) > MAX_FINISHED or sum(len(r.text) for r in self._reports.values()) > MAX_BYTES:
            self._reports.popitem(last=False)

    def get(self, report_id: str) -> Report | None:
        """The report of that id, None when it is gone or never was."""
        return self._reports.get(report_id)

    def index(self) -> list[dict[str, Any]]:
        """Newest first: where each is and which tool made it."""
        return [{"uri": f"oomdoctor://reports/{r.id}", "tool": r.tool} for r in reversed(self._reports.values())]
