"""What the tests stand on: the EC2 side alone, or the whole stack with Cordon deployed."""

from __future__ import annotations

from pathlib import Path
from typing import Iterator

import pytest

from support import member
from support.stack import LocalStack


LAST = "test_the_calls_that_were_made.py"  # looks back on the calls of all others
LEFT_OUT = pytest.StashKey[list[str]]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name == LAST)
    files = {path.name for path in Path(__file__).parent.rglob("test_*.py")}
    parts = [argument for argument in config.args if "::" in argument]
    config.stash.setdefault(LEFT_OUT, []).extend(sorted(files - {item.path.name for item in items}) + [f"all of {part} but it" for part in parts])


def pytest_deselected(items: list[pytest.Item]) -> None:
    for item in items:
        item.config.stash.setdefault(LEFT_OUT, []).append(item.name)


@pytest.fixture(scope="session")
def moto() -> Iterator[LocalStack]:
    """The EC2 side alone: starts in seconds."""
    with LocalStack(moto_only=True) as stack:
        yield stack


@pytest.fixture(scope="session")
def stack() -> Iterator[LocalStack]:
    """The whole stack, deployed once from .aws-sam/build; each test builds victims of its own.

    Snapshots, draining and detaching take seconds, as they take minutes on AWS, so that every test waits for them;
    the workflow's waits are shortened to match.
    """
    slow = {"MOTO_SNAPSHOT_PENDING_SECONDS": "2", "MOTO_DRAIN_SECONDS": "2", "MOTO_DETACH_SECONDS": "2", "SFN_WAIT_SCALE": "0.1"}
    with LocalStack(settings=slow) as whole:
        whole.deploy({"StateMachineName": "cordon-drill", "MaxConcurrency": "2", "LogLevel": "ERROR", **member.PARAMETERS})
        yield whole
        whole.inject()
