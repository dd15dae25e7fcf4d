"""What IAM would say: a small evaluator, which knows the operators that the templates use and fails on any other."""

from __future__ import annotations

import json
import re
from typing import Any


def rendered(value: Any, given: dict[str, str]) -> Any:
    """A value as CloudFormation would write it."""
    if isinstance(value, dict):
        return {name: rendered(one, given) for name, one in value.items()}
    if isinstance(value, list):
        return [rendered(one, given) for one in value]
    if isinstance(value, str) and value.startswith("!Ref "):
        return given[value.removeprefix("!Ref ")]
    if isinstance(value, str) and value.startswith("!Sub "):
        text = re.sub(r"\$\{([^!}][^}]*)\}", lambda found: given[found[1]], value.removeprefix("!Sub "))
        return text.replace("${!", "${")
    return value


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def steps_of(statement: dict[str, Any]) -> set[str]:
    """The steps that a statement is for."""
    return set(listed(statement.get("Condition", {}).get("StringEquals", {}).get("aws:PrincipalTag/CordonStep", [])))


def matches(pattern: str, text: str) -> bool:
    return re.fullmatch(re.escape(pattern).replace(r"\*", ".*").replace(r"\?", "."), text) is not None


def arn_like(pattern: str, arn: str) -> bool:
    """Part by part: a wildcard does not reach across a colon, but in the last part."""
    patterns, parts = pattern.split(":", 5), arn.split(":", 5)
    return len(patterns) == len(parts) and all(map(matches, patterns, parts))
OPERATORS = {
    "StringEquals": str.__eq__,
    "StringLike": matches,
    "ArnLike": arn_like,
    "Bool": lambda wanted, value: wanted == str(value).lower(),
}


def holds(condition: dict[str, dict[str, Any]], context: dict[str, Any]) -> bool:
    def one(operator: str, key: str, wanted: list[str]) -> bool:
        if operator == "Null":
            return wanted == [str(key not in context).lower()]
        if operator == "ForAnyValue:StringNotEquals":
            return any(value not in wanted for value in listed(context.get(key, [])))
        if operator.startswith("ForAllValues:"):
            test = OPERATORS[operator.removeprefix("ForAllValues:")]
            return all(any(test(pattern, value) for pattern in wanted) for value in listed(context.get(key, [])))
        return key in context and any(OPERATORS[operator](pattern, context[key]) for pattern in wanted)

    return all(
        one(operator, key, [filled_in(pattern, context) for pattern in listed(wanted)])
        for operator, keys in condition.items()
        for key, wanted in keys.items()
    )


def filled_in(text: str, context: dict[str, Any]) -> str:
    """A policy variable as its value; without one, as what matches nothing."""
    return re.sub(r"\$\{([^}]+)\}", lambda found: context.get(found[1], "\0"), text)


def decision(document: list[dict[str, Any]], action: str, resource: str | None, context: dict[str, Any]) -> bool:
    def applies(statement: dict[str, Any]) -> bool:
        on = [filled_in(arn, context) for arn in listed(statement.get("Resource", "*"))]
        return (
            action in listed(statement["Action"])
            and (resource is None or any(matches(arn, resource) for arn in on))
            and holds(statement.get("Condition", {}), context)
        )

    effects = {statement["Effect"] for statement in document if applies(statement)}
    return effects == {"Allow"}


def size(policy: dict[str, Any]) -> int:
    """As IAM counts: white space does not."""
    return len(re.sub(r"\s", "", json.dumps(policy)))
