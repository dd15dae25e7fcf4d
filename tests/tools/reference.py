#!/usr/bin/env python3
"""Writes docs/reference/ from the template, the schemas and the code: `make reference`. A test compares."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any, Iterator

import yaml

PROJECT = Path(__file__).resolve().parents[2]
PAGES = PROJECT / "docs" / "reference"
NOTE = "<!-- Written by `make reference`. Change what it is written from. -->"


class Loader(yaml.SafeLoader):
    """CloudFormation's short forms as the text that a reader wants: `!Ref X` and `!GetAtt X.Arn` are X."""


def short_form(loader: yaml.Loader, suffix: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.ScalarNode):
        value = re.sub(r"\$\{(?:AWS::)?(\w+)(?:\.\w+)?\}", r"<\1>", node.value)
        return value.removesuffix(".Arn") if suffix == "GetAtt" else value
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    return loader.construct_mapping(node, deep=True)


Loader.add_multi_constructor("!", short_form)


def load(name: str) -> dict[str, Any]:
    return yaml.load((PROJECT / name).read_text(encoding="utf-8"), Loader)


def page(title: str, *parts: str) -> str:
    return "\n\n".join([f"# {title}", NOTE, *parts]) + "\n"


def table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ").strip() for cell in line) + " |" for line in lines)


def code(value: Any) -> str:
    return f"`{value}`"


# --- Parameters ------------------------------------------------------------------------------------------------------


def parameters() -> str:
    template = load("template.yaml")
    given, parts = template["Parameters"], ["The parameters of `template.yaml`, as `sam deploy --guided` asks for them."]
    for group in template["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]:
        rows = [(code(name), default(given[name]), accepted(given[name]), given[name]["Description"]) for name in group["Parameters"]]
        parts += [f"## {group['Label']['default']}", table(("parameter", "default", "accepted", "meaning"), rows)]
    return page("Parameters", *parts)


def default(parameter: dict[str, Any]) -> str:
    value = parameter.get("Default", "")
    return code(value) if value != "" else "none"


def accepted(parameter: dict[str, Any]) -> str:
    if "AllowedValues" in parameter:
        return ", ".join(code(value) for value in parameter["AllowedValues"])
    least, most = parameter.get("MinValue"), parameter.get("MaxValue")
    if least is not None:
        return f"{least} to {most:,}" if most is not None else f"{least} or more"
    return parameter.get("ConstraintDescription", "text")


# --- Inputs ----------------------------------------------------------------------------------------------------------


def inputs() -> str:
    parts = ["The workflow rejects anything else in one sentence, before it touches anything."]
    for title, name, example in (("Containment", "input", "contain"), ("Release", "release-input", "release")):
        schema = json.loads((PROJECT / f"events/{name}.schema.json").read_text(encoding="utf-8"))
        rows = [(code(field), needed(schema, field), shape(one), one.get("description", "")) for field, one in schema["properties"].items()]
        text = (PROJECT / f"events/{example}.json").read_text(encoding="utf-8").strip()
        parts += [
            f"## {title}",
            f"Schema: [`events/{name}.schema.json`](../../events/{name}.schema.json).",
            f"```json\n{text}\n```",
            table(("field", "default", "accepted", "meaning"), rows),
        ]
    return page("Inputs", *parts)


def needed(schema: dict[str, Any], field: str) -> str:
    if field in schema["required"]:
        return "required"
    value = schema["properties"][field].get("default")
    return "none" if value is None else code(json.dumps(value).strip('"'))


def shape(field: dict[str, Any]) -> str:
    if "enum" in field:
        return ", ".join(code(value) for value in field["enum"])
    kind = field.get("type", "value")
    if kind == "array":
        return f"list of {shape(field['items'])}"
    if "pattern" in field:
        return f"text like {code(field['pattern'])}"
    return {"boolean": "`true`, `false`", "string": "text"}.get(kind, kind)


# --- Verdicts --------------------------------------------------------------------------------------------------------


def verdicts() -> str:
    return page(
        "Verdicts and statuses",
        "Every word comes from reading AWS back.",
        "## The verdict of an instance",
        table(("verdict", "meaning"), variants("Verdict")),
        "## The status of a step",
        table(("status", "meaning"), variants("Status")),
    )


def variants(enum: str) -> list[tuple[str, str]]:
    """The variants of an enum of the crates with what their documentation says."""
    sources = sorted((PROJECT / "crates").glob("*/src/**/*.rs"))
    (body,) = (found[1] for path in sources for found in re.finditer(rf"^pub enum {enum} \{{\n(.*?)^\}}", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE))
    rows, words = [], []
    for line in map(str.strip, body.splitlines()):
        if line.startswith("///"):
            words.append(line.removeprefix("///").strip())
        elif found := re.match(r"(\w+),?$", line):
            rows.append((code(found[1]), " ".join(words)))
            words = []
    return rows


# --- Steps -----------------------------------------------------------------------------------------------------------


def steps() -> str:
    resources = load("template.yaml")["Resources"]
    functions = {kebab(name): one for name, one in resources.items() if one["Type"] == "AWS::Serverless::Function"}
    order = list(dict.fromkeys([*invoked("contain"), *invoked("release"), *sorted(functions)]))
    parts = [
        "Each function has a role of its own, which allows exactly the calls below; a test compares them with the calls that the tests have made.",
        "Calls on an instance of another account are made as that account's member role, whose session is tagged with the step and the instance: see [`templates/member-account.yaml`](../../templates/member-account.yaml).",
        "In resources, `<…>` is filled in by the deployment.",
    ]
    parts += ["## What a step does, and what becomes of it", overview()]
    for name in order:
        parts += [f"## {name}", purpose(name), called_by(name), table(("actions", "resources", "condition"), permissions(functions[name]))]
    return page("Steps and their permissions", *[part for part in parts if part])


RELEASED = {
    "Undone": "undone",
    "OnRequest": "undone if asked for",
    "Evidence": "stays: it is evidence",
    "Final": "does not come back",
    "Nothing": "nothing to undo",
}


def overview() -> str:
    """The list of steps, as crates/verdict has it."""
    known = json.loads((PROJECT / "docs/steps.json").read_text(encoding="utf-8"))["Steps"]
    rows = [(code(one["Step"]), one["About"], "yes" if one["Disturbs"] else "no", RELEASED[released(one["Release"])]) for one in known]
    return table(("step", "what it does", "waits for an approval", "at a release"), rows)


def released(release: str | dict[str, int]) -> str:
    return release if isinstance(release, str) else next(iter(release))


def kebab(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower()


def machine_states(machine: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, state in machine["States"].items():
        yield name, state
        for inner in [*state.get("Branches", []), *([state["ItemProcessor"]] if "ItemProcessor" in state else [])]:
            yield from machine_states(inner)


def states_by_function(machine: str) -> dict[str, list[str]]:
    """For each function, in the order of the workflow, the states that invoke it."""
    definition, found = json.loads((PROJECT / f"statemachine/{machine}.asl.json").read_text(encoding="utf-8")), {}
    for name, state in machine_states(definition):
        function = state.get("Arguments", {}).get("FunctionName", "") if isinstance(state.get("Arguments"), dict) else ""
        if match := re.fullmatch(r"\$\{(\w+)\}", function):
            found.setdefault(kebab(match[1]), []).append(name)
    return found


def invoked(machine: str) -> list[str]:
    return list(states_by_function(machine))


def called_by(function: str) -> str:
    lines = []
    for machine, title in (("contain", "Containment"), ("release", "Release")):
        if names := states_by_function(machine).get(function):
            lines.append(f"{title}: {', '.join(names)}.")
    return "\n".join(lines) or "Called by a queue, outside the workflow."


def purpose(function: str) -> str:
    """The first paragraph of the crate's documentation, one sentence a line."""
    text = (PROJECT / f"functions/{function}/src/lib.rs").read_text(encoding="utf-8")
    lines = [line.removeprefix("//!").strip() for line in text.splitlines() if line.startswith("//!")]
    paragraph = " ".join(lines[: lines.index("")] if "" in lines else lines)
    return re.sub(r"(?<=[.!?]) (?=[A-Z])", "\n", paragraph)


def permissions(function: dict[str, Any]) -> list[tuple[str, ...]]:
    rows = []
    for policy in function["Properties"].get("Policies", []):
        for statement in policy.get("Statement", []):
            statement = statement[1] if isinstance(statement, list) else statement  # !If [condition, statement, nothing]
            actions = ", ".join(code(action) for action in listed(statement["Action"]))
            resources = ", ".join(code(one) for one in listed(statement["Resource"]))
            rows.append((actions, resources, condition(statement.get("Condition", {}))))
    return rows


def listed(value: Any) -> list[Any]:
    flat: list[Any] = []
    for one in value if isinstance(value, list) else [value]:
        flat += listed(one) if isinstance(one, list) else [one]
    return flat


def condition(value: dict[str, Any]) -> str:
    return "; ".join(
        f"{code(key)} {operator} {', '.join(code(one) for one in listed(wanted))}" for operator, keys in value.items() for key, wanted in keys.items()
    )


WRITTEN = {"parameters.md": parameters, "inputs.md": inputs, "verdicts.md": verdicts, "steps.md": steps}


def main() -> None:
    PAGES.mkdir(parents=True, exist_ok=True)
    for name, written in WRITTEN.items():
        (PAGES / name).write_text(written(), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
