"""Sandboxes for tests. Where none can be made the tests are skipped, with what bubblewrap said."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from clew.sandbox.errors import SandboxUnavailable
from clew.sandbox.limits import Limits
from clew.sandbox.pool import Pool

SHORT = Limits(cpu_s=2, wall_s=4.0, memory_mib=256, threads=4, files_mib=4, output_kib=64)


@pytest.fixture(scope="session")
def pool() -> Iterator[Pool]:
    made = Pool(lanes=2)
    try:
        made.run("pass")
    except SandboxUnavailable as error:
        pytest.skip(f"no sandbox can be made here: {error.given}")
    yield made
    made.close()


@pytest.fixture(scope="session")
def limits() -> Limits:
    return SHORT
