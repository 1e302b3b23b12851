"""House rules that a machine can check: size of files, no private paths, docstrings, packaging, documents."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "clew"
SOFT_LINES, HARD_LINES = 400, 600
LONGER_THAN_SOFT: frozenset[str] = frozenset()
"""Files that may exceed the soft limit. The list only shrinks."""
MAX_FUNCTION_LINES = 80
SHORT_LINES = 6
MACHINE_PATH = re.compile(
    r"/(?:tmp/v|work|root|home/\w+|Users/\w+)/|file:///|(?i:https?://[^\s\"']*(?:pypi-mirror|artifactory))"
)
DOCUMENTED = ("core", "tasks", "stats", "search", "initialize", "learn", "data", "evaluate")
MODULES = sorted(SOURCE.rglob("*.py"))


def tracked() -> list[Path]:
    """Text files that belong to the repository, staged or new; without git (an unpacked archive), source and tests."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        names = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.split("\0")
    except (OSError, subprocess.CalledProcessError):
        return [p for room in ("src", "tests", "docs") for p in (ROOT / room).rglob("*") if p.is_file()]
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


@pytest.mark.parametrize("path", [p for p in tracked() if p.suffix == ".py"], ids=lambda p: str(p.relative_to(ROOT)))
def test_file_is_not_too_long(path):
    name = str(path.relative_to(ROOT))
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= HARD_LINES
    assert lines <= SOFT_LINES or name in LONGER_THAN_SOFT or name.startswith("tests/")


def test_functions_fit_on_a_screen():
    long = []
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno >= MAX_FUNCTION_LINES:
                long.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}")
    assert long == []


def test_no_path_of_a_machine_in_any_file():
    found = []
    for path in tracked():
        if path == Path(__file__):
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(ROOT)}: {m.group()}" for m in MACHINE_PATH.finditer(text)]
    assert found == []


@pytest.mark.parametrize(
    "text", ["/" + "work/main/src", "see /home/ann/clew", "file:///opt/wheels", "/" + "root/.cache"]
)
def test_the_pattern_of_machine_paths_finds_them(text):
    assert MACHINE_PATH.search(text)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_module_says_what_it_holds(path):
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("room", DOCUMENTED)
def test_public_functions_and_classes_have_docstrings(room):
    """Functions and classes of a module, not methods: those that implement a protocol are documented there."""
    bare = []
    for path in sorted((SOURCE / room).rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            public = isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
            if public and not ast.get_docstring(node) and not _says_it_all(node):
                bare.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}")
    assert bare == []


def _says_it_all(node: ast.stmt) -> bool:
    """Enumerations, and what is so short that its name and its types are its docstring."""
    enumeration = isinstance(node, ast.ClassDef) and any(isinstance(b, ast.Name) and "Enum" in b.id for b in node.bases)
    return enumeration or (node.end_lineno or 0) - node.lineno < SHORT_LINES


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def test_every_dependency_is_pinned_exactly():
    wanted = list(project()["dependencies"])
    for extra in project()["optional-dependencies"].values():
        wanted += extra
    names = {re.split(r"[^\w-]", requirement)[0] for requirement in wanted}
    assert names - set(pins()) == set()
    assert pins()["torch"] == "2.13.0"
    assert all(re.fullmatch(r"[0-9][0-9a-z.]*", version) for version in pins().values())


def test_version_is_told_once():
    import clew

    assert project()["version"] == clew.__version__
    assert f"## {clew.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def links(path: Path) -> list[tuple[Path, str]]:
    """Where the links of a document lead within the repository: a file, and a heading or nothing."""
    found = re.findall(r"\]\(([^)#\s]*)#?([^)\s]*)[^)]*\)", path.read_text(encoding="utf-8"))
    return [(path.parent / name if name else path, heading) for name, heading in found if "://" not in name]


def headings(path: Path) -> set[str]:
    """Of a document, as links write them: in lower case, blanks as dashes, without marks."""
    lines = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE).splitlines()
    found = [re.sub(r"[^\w\s-]", "", line.lstrip("#").strip().lower()) for line in lines if line.startswith("#")]
    return {heading.replace(" ", "-") for heading in found}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_of_documents_lead_somewhere(path):
    for target, heading in links(path):
        assert target.exists(), target
        assert not heading or heading in headings(target), f"{target}#{heading}"


def test_the_index_lists_every_document():
    index = ROOT / "docs" / "index.md"
    listed = {target.resolve() for target, _ in links(index)} | {index.resolve()}
    assert {p.resolve() for p in (ROOT / "docs").rglob("*.md")} - listed == set()
