"""Parquet files of rows, for whoever has installed what they need."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clew.core.errors import MissingExtra
from clew.data.files import friendly_os_errors


def arrow() -> Any:
    """The package that reads and writes them. Raises `MissingExtra` without it."""
    try:
        import pyarrow.parquet
    except ImportError:
        given, advice = "pyarrow is not installed", "python -m pip install 'clew[parquet]'"
        raise MissingExtra(given, "Parquet files with it, JSON lines without", advice) from None
    return pyarrow


def write_parquet(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Replace the file as a whole."""
    package = arrow()
    aside = path.with_name(f".{path.name}.tmp")
    with friendly_os_errors(path):
        try:
            package.parquet.write_table(package.Table.from_pylist(rows), aside)
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)


def read_parquet(path: Path) -> list[Any]:
    """The rows of the file. Raises `OSError` or `ValueError` for one that cannot be read."""
    rows: list[Any] = arrow().parquet.read_table(path).to_pylist()
    return rows
