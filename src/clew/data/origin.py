"""Where a row of training data comes from: run, stage, strategy, and the node of a tree or the place in a group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Provenance of one row; the problem is in the row itself."""

    run: str = ""
    """The run directory as it was named."""
    stage: str = ""
    """The stage of the run, e.g. `search`, `rl`."""
    strategy: str = ""
    """The strategy that searched; `sample` for plain samples."""
    tree: str = ""
    """File name of the tree in the run, without its ending; empty for what comes from the trajectory store."""
    node: int | None = None
    """The node of that tree."""
    sample: int | None = None
    """The place in its group, of what comes from the trajectory store."""
