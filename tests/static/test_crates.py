"""Who depends on whom: a function is built from crates, never from another function."""

from __future__ import annotations

import tomllib
from functools import cache

import pytest

from support.template import CRATES, FUNCTIONS

# Their work is to look at all steps: they read each step's state by the step's own crate.
LOOK_AT_ALL_STEPS = {"describe-instance", "verify-containment", "verify-release"}


@cache
def names(home: str) -> set[str]:
    return {path.parent.name for path in {"crates": CRATES, "functions": FUNCTIONS}[home].glob("*/Cargo.toml")}


@cache
def built_from(name: str) -> set[str]:
    """The members of the workspace that a member is built from; what only its tests use is not among them."""
    folder = (FUNCTIONS if name in names("functions") else CRATES) / name
    manifest = tomllib.loads((folder / "Cargo.toml").read_text(encoding="utf-8"))
    return set(manifest.get("dependencies", {})) & (names("crates") | names("functions"))


@cache
def reach(name: str) -> set[str]:
    return built_from(name).union(*map(reach, built_from(name)))


def is_step(name: str) -> bool:
    """Whether a function's own crate implements a step."""
    return any("Step for " in path.read_text(encoding="utf-8") for path in (FUNCTIONS / name / "src").glob("*.rs"))


@pytest.mark.parametrize("name", sorted(names("functions") - LOOK_AT_ALL_STEPS))
def test_a_function_depends_on_no_other_function(name: str) -> None:
    assert built_from(name) & names("functions") == set()


@pytest.mark.parametrize("name", sorted(LOOK_AT_ALL_STEPS))
def test_who_looks_at_all_steps_depends_on_steps_and_on_no_other_function(name: str) -> None:
    steps = built_from(name) & names("functions")
    assert steps and all(map(is_step, steps))


@pytest.mark.parametrize("name", sorted(names("crates")))
def test_a_crate_depends_on_no_function(name: str) -> None:
    assert built_from(name) & names("functions") == set()


def test_the_command_line_is_built_without_lambdas_runtime_and_without_ec2() -> None:
    foreign = set()
    for name in {"cordon"} | reach("cordon"):
        foreign |= set(tomllib.loads((CRATES / name / "Cargo.toml").read_text(encoding="utf-8")).get("dependencies", {}))
    assert foreign & {"lambda_runtime", "runtime", "aws-sdk-ec2", "aws-sdk-s3"} == set()


def test_only_the_runtime_crate_reads_the_environment() -> None:
    readers = {path.parts[len(CRATES.parts)] for path in CRATES.glob("*/src/**/*.rs") if "std::env::var(" in path.read_text(encoding="utf-8")}
    assert readers == {"runtime"}
    assert not any("std::env::var(" in path.read_text(encoding="utf-8") for path in FUNCTIONS.glob("*/src/**/*.rs"))
