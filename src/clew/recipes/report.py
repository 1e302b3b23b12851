"""Write the HTML report of a run again, from what its directory holds."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import tyro

EXAMPLES = """
clew report runs/first
clew report runs/first --json
"""


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """Write report.html of a run again, from the files in its directory."""

    run: tyro.conf.Positional[Path]
    """The run directory."""
    json: bool = False
    """Print one JSON object: report."""


CONFIG = ReportConfig


def main(config: ReportConfig) -> int:
    from clew.report.html import write_report

    path = write_report(config.run)
    print(json.dumps({"report": str(path)}) if config.json else path)
    return 0
