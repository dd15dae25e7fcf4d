"""What the tests of the emulators stand on, besides `moto` and `stack` (see ../../conftest.py)."""

from __future__ import annotations

from typing import Iterator

import pytest

from support.listener import Listener
from support.stack import LocalStack
from support.victim import Victim, bare_instance


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "proves(*patches): fails without any of these patches (see needed.py)")


@pytest.fixture(scope="session")
def slow_seconds() -> float:
    """How long something takes in `slow_moto`."""
    return 0.8


@pytest.fixture(scope="session")
def slow_moto(slow_seconds: float) -> Iterator[LocalStack]:
    """An EC2 side on which snapshots, detaching, draining and the end of sessions take their time."""
    names = ("MOTO_SNAPSHOT_PENDING_SECONDS", "MOTO_DETACH_SECONDS", "MOTO_DRAIN_SECONDS", "MOTO_SESSION_ENDS_SECONDS")
    with LocalStack(moto_only=True, settings={name: str(slow_seconds) for name in names}) as stack:
        yield stack


@pytest.fixture(scope="session")
def bare_stack() -> Iterator[LocalStack]:
    """Both emulators, with nothing deployed."""
    with LocalStack() as stack:
        yield stack


@pytest.fixture(scope="session")
def hurried_stack() -> Iterator[LocalStack]:
    """Both emulators. Waits and pauses take a tenth of their time, as in the tests of Cordon, but no timeout may."""
    with LocalStack(settings={"SFN_WAIT_SCALE": "0.1"}) as stack:
        yield stack


@pytest.fixture(scope="module")
def bare(moto: LocalStack) -> Victim:
    return bare_instance(moto)


@pytest.fixture
def listener(hurried_stack: LocalStack) -> Listener:
    return Listener(hurried_stack)
