"""One session of tests over several workers, each with stacks of its own: who runs what, and when.

Tests that share a fixture of their module stay together on one worker. All others go wherever there is room, those that
take longest first. What looks back on the calls of all tests comes last, when the other workers have ended.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from .stack import TESTS, session_folder

LOOKING_BACK = "looking_back"  # a folder of tests, and their group
# What a test of which nothing is known is expected to take, by a fixture that it uses.
EXPECTED = {"fleet_stack": 30.0, "yard": 30.0, "stack": 10.0, "browser": 1.0}

left_out: list[str] = []  # of all tests, those that this session does not run


def note_gaps(arguments: list[str], items: list[pytest.Item]) -> None:
    """Notes the files, and the parts of files, that this session leaves out."""
    files = {str(path.relative_to(TESTS)) for path in TESTS.rglob("test_*.py")}
    parts = [argument for argument in arguments if "::" in argument]
    left_out.extend(sorted(files - {str(item.path.relative_to(TESTS)) for item in items}) + [f"all of {part} but it" for part in parts])


def arrange(items: list[pytest.Item], known: dict[str, float]) -> None:
    """Marks the groups for pytest-xdist, and puts them into the order in which it hands them out."""
    for item in items:
        if looks_back(item):
            item.add_marker(pytest.mark.xdist_group(LOOKING_BACK))
        elif item.get_closest_marker("xdist_group") is None and shares_a_fixture(item):
            item.add_marker(pytest.mark.xdist_group(item.path.stem))
    seconds: dict[str, float] = {}
    for item in items:
        seconds[group_of(item)] = seconds.get(group_of(item), 0.0) + known.get(item.nodeid, expected(item))
    items.sort(key=lambda item: (looks_back(item), -seconds[group_of(item)], group_of(item)))


def looks_back(item: pytest.Item) -> bool:
    return item.path.parent.name == LOOKING_BACK


def shares_a_fixture(item: pytest.Item) -> bool:
    """Whether the test uses a fixture that its module makes once for several."""
    fixtures = getattr(item, "_fixtureinfo").name2fixturedefs.values()
    return any(fixture[-1].scope in ("class", "module") for fixture in fixtures)


def group_of(item: pytest.Item) -> str:
    mark = item.get_closest_marker("xdist_group")
    return mark.args[0] if mark else item.nodeid


def expected(item: pytest.Item) -> float:
    return next((seconds for fixture, seconds in EXPECTED.items() if fixture in item.fixturenames), 0.2)


# --- Workers -----------------------------------------------------------------------------------------------------


def register_worker() -> None:
    """Says that this process is one of the session's workers."""
    if worker := os.environ.get("PYTEST_XDIST_WORKER"):
        folder = session_folder() / "workers"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / worker).write_text(str(os.getpid()), encoding="ascii")


def wait_for_other_workers() -> None:
    """Until their processes are gone, and all that they have called is on record."""
    others = [path for path in (session_folder() / "workers").glob("*") if path.name != os.environ.get("PYTEST_XDIST_WORKER")]
    while any(Path("/proc", path.read_text(encoding="ascii")).exists() for path in others):
        time.sleep(0.2)
