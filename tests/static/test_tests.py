"""The tests themselves: where they lie, and what they stand on."""

from __future__ import annotations

import ast
from pathlib import Path

from support.stack import TESTS

SUBJECTS = {path.parent.name for path in TESTS.rglob("test_*.py")}


def imported(path: Path) -> set[str]:
    """The modules and names that a file imports, whole."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    plain = {name.name for node in nodes if isinstance(node, ast.Import) for name in node.names}
    return plain | {f"{node.module}.{name.name}" for node in nodes if isinstance(node, ast.ImportFrom) for name in node.names}


def test_no_file_imports_a_test_file() -> None:
    is_test = lambda name: any(part.startswith("test_") or part == "conftest" for part in name.split("."))
    assert {(path.name, name) for path in TESTS.rglob("*.py") for name in imported(path) if is_test(name)} == set()


def test_a_test_file_lies_in_the_folder_of_its_subject() -> None:
    assert list(TESTS.glob("test_*.py")) == [] and not SUBJECTS & {"support", "tools"}


def test_helpers_and_tools_know_no_folder_of_tests() -> None:
    files = [*(TESTS / "support").glob("*.py"), *(TESTS / "tools").glob("*.py")]
    assert {(path.name, name) for path in files for name in imported(path) if name.split(".")[0] in SUBJECTS} == set()
