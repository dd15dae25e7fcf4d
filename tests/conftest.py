"""What the tests stand on: the EC2 side alone, or the whole stack with Cordon deployed."""

from __future__ import annotations

import os
from datetime import datetime
from typing import Any, Iterator

import pytest

from support import member
from support.inbox import Inbox
from support.package import deploy_package
from support.session import Schedule, arrange, left_out, note_gaps, note_groups, note_worker
from support.stack import SESSION, LocalStack

DURATIONS = "cordon/durations"  # where pytest's cache has how long each test took the last time
durations: dict[str, float] = {}


def pytest_configure() -> None:
    """Whoever hands out the work names the session; its workers inherit the name."""
    os.environ.setdefault(SESSION, f"{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}")
    note_worker(True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    note_gaps(config.args, items)
    arrange(items, config.cache.get(DURATIONS, {}))
    if hasattr(config, "workerinput"):
        note_groups(items)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Schedule:
    return Schedule(config, log)


def pytest_deselected(items: list[pytest.Item]) -> None:
    left_out.extend(item.name for item in items)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    durations[report.nodeid] = durations.get(report.nodeid, 0.0) + report.duration


def pytest_sessionfinish(session: pytest.Session) -> None:
    note_worker(False)
    if not hasattr(session.config, "workerinput"):
        cache = session.config.cache
        cache.set(DURATIONS, {**cache.get(DURATIONS, {}), **durations})


@pytest.fixture(scope="session")
def moto() -> Iterator[LocalStack]:
    """The EC2 side alone: starts in seconds."""
    with LocalStack(moto_only=True) as stack:
        yield stack


@pytest.fixture(scope="session")
def stack() -> Iterator[LocalStack]:
    """The whole stack, deployed once for all tests of a worker; each of them builds victims of its own.

    Snapshots, draining and detaching take a second, as they take minutes on AWS, so that every test waits for them;
    the workflow's waits are shortened to match, and so is the queue's pause before it brings a call to watch-drift back.
    """
    slow = {"MOTO_SNAPSHOT_PENDING_SECONDS": "1", "MOTO_DRAIN_SECONDS": "1", "MOTO_DETACH_SECONDS": "1", "SFN_WAIT_SCALE": "0.02"}
    with LocalStack(settings=slow) as whole:
        deploy_package(whole, {"StateMachineName": "cordon-drill", "MaxConcurrency": "2", "LogLevel": "ERROR", **member.PARAMETERS})
        sqs = whole.client("sqs")
        sqs.set_queue_attributes(QueueUrl=sqs.get_queue_url(QueueName="cordon-drill-drift")["QueueUrl"], Attributes={"VisibilityTimeout": "2"})
        yield whole


@pytest.fixture(scope="session")
def inbox(stack: LocalStack) -> Inbox:
    """Everything that anybody is told on the worker's stack."""
    return Inbox(stack)


@pytest.fixture(autouse=True)
def fair_weather(request: pytest.FixtureRequest) -> Iterator[None]:
    """No fault outlives the test that has injected it."""
    yield
    if "stack" in request.fixturenames:
        request.getfixturevalue("stack").inject()
