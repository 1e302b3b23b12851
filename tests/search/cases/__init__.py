"""What the conformance suite runs: every module of this folder exports `CASES`, a case for each use of a strategy."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from clew.core.types import Sampling


@dataclass(frozen=True, kw_only=True)
class Case:
    """A strategy as the suite uses it."""

    name: str
    make: Callable[[int], Any]
    """The strategy of that size: a larger `n` may spend more. Must differ from plain sampling for `n` = 4."""
    guide: Literal["none", "verifier", "scorer"]
    """Who it asks: with "verifier" it may call `verify`, with "scorer" it needs a scorer."""
    plain: Sampling | None = None
    """With `n` = 1 it equals plain sampling, step after step as this says; None where that does not apply."""
    improves: bool = True
    """With an exact guide a larger `n` answers no worse in expectation. False where nothing guides."""
    sizes: tuple[int, ...] = (1, 3, 8)
    """Values of `n` that are compared for that."""
    best: bool = True
    """The exact scorer tells V*, the best value that can be reached from a state; False: the expected one."""
    tree: bool = True
    """It keeps a tree."""


def all_cases() -> list[Case]:
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return [case for name in names for case in importlib.import_module(f"{__name__}.{name}").CASES]
