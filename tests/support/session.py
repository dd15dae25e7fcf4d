"""One session of tests over several workers, each with stacks of its own: who runs what, and when.

Tests that share a fixture of their module stay together on one worker. All others go wherever there is room, those that
take longest first. What looks back on the calls of all tests comes last, when the other workers have ended.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling

from .stack import TESTS, session_folder

LOOKING_BACK = "looking_back"  # a folder of tests, and their group
EVERYWHERE = {"stack", "moto", "inbox", "slow_seconds"}  # fixtures that each worker makes for itself
DEPLOYED = {"stack", "fleet_stack", "yard"}  # fixtures on which Cordon is deployed
# What a test of which nothing is known is expected to take, by a fixture that it uses.
EXPECTED = {"fleet_stack": 30.0, "yard": 30.0, "stack": 10.0}

left_out: list[str] = []  # of all tests, those that this session does not run


def note_gaps(arguments: list[str], items: list[pytest.Item]) -> None:
    """The files, and the parts of files, that this session leaves out."""
    files = {str(path.relative_to(TESTS)) for path in TESTS.rglob("test_*.py")}
    parts = [argument for argument in arguments if "::" in argument]
    left_out.extend(sorted(files - {str(item.path.relative_to(TESTS)) for item in items}) + [f"all of {part} but it" for part in parts])


# --- Groups ------------------------------------------------------------------------------------------------------


def arrange(items: list[pytest.Item], known: dict[str, float]) -> None:
    """Groups that take long first, whatever looks back last; `known` is how many seconds each test took the last time.

    Marks the tests that need Cordon deployed, so that `make check` can leave them out.
    """
    seconds: dict[str, float] = {}
    for item in items:
        if group_of(item) == LOOKING_BACK or DEPLOYED & set(item.fixturenames):
            item.add_marker("deployed")
        seconds[group_of(item)] = seconds.get(group_of(item), 0.0) + known.get(item.nodeid, expected(item))
    items.sort(key=lambda item: (group_of(item) == LOOKING_BACK, -seconds[group_of(item)], group_of(item)))


def group_of(item: pytest.Item) -> str:
    """What one worker runs in one go: a test alone, or those that are marked, or that stand on something which is made once."""
    mark = item.get_closest_marker("xdist_group")
    if item.path.parent.name == LOOKING_BACK:
        return LOOKING_BACK
    return mark.args[0] if mark else made_once(item) or item.nodeid


def made_once(item: pytest.Item) -> str | None:
    """A fixture of the session that not every worker needs to have, or the file whose tests share one."""
    fixtures = {name: found[-1] for name, found in getattr(item, "_fixtureinfo").name2fixturedefs.items() if name not in EVERYWHERE}
    ours = {name: one.scope for name, one in fixtures.items() if not one.func.__module__.startswith(("_pytest.", "xdist.", "hypothesis"))}
    of_session = sorted(name for name, scope in ours.items() if scope == "session")
    of_file = [str(item.path.relative_to(TESTS))] if {"module", "class"} & set(ours.values()) else []
    return next(iter(of_session + of_file), None)


def expected(item: pytest.Item) -> float:
    return next((seconds for fixture, seconds in EXPECTED.items() if fixture in item.fixturenames), 0.2)


class Schedule(LoadScopeScheduling):
    """Hands the groups out in the order in which the workers have collected them, and note them down."""

    def schedule(self) -> None:
        self.config.option.loadscopereorder = False
        super().schedule()

    def _split_scope(self, nodeid: str) -> str:
        if not hasattr(self, "_groups"):
            self._groups: dict[str, str] = json.loads(groups_file().read_text(encoding="utf-8"))
        return self._groups[nodeid]


def note_groups(items: list[pytest.Item]) -> None:
    """For the process that hands out the work: it has collected nothing itself. Every worker writes the same."""
    new = groups_file().with_suffix(f".{os.getpid()}")
    new.write_text(json.dumps({item.nodeid: group_of(item) for item in items}), encoding="utf-8")
    new.replace(groups_file())


def groups_file() -> Path:
    session_folder().mkdir(parents=True, exist_ok=True)
    return session_folder() / "groups.json"


# --- Workers -----------------------------------------------------------------------------------------------------


def note_worker(works: bool) -> None:
    """Says that this process is one of the session's workers, or that it is no longer."""
    if worker := os.environ.get("PYTEST_XDIST_WORKER"):
        folder = session_folder() / "workers"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / worker).write_text(str(os.getpid()) if works else "", encoding="ascii")


def wait_for_other_workers() -> None:
    """Until they have stopped their stacks, so that all calls are on record, or are gone."""
    others = [path for path in (session_folder() / "workers").glob("*") if path.name != os.environ.get("PYTEST_XDIST_WORKER")]
    while any((process := path.read_text(encoding="ascii")) and Path("/proc", process).exists() for path in others):
        time.sleep(0.2)
