"""The role of templates/member-account.yaml, its parameters filled in, and the functions that act through it."""

from __future__ import annotations

from functools import cache
from typing import Any, Iterable

import yaml

from .home_role import UNNAMED
from .iam import rendered
from .stack import PROJECT
from .template import FUNCTIONS, Loader, functions
TEMPLATE = PROJECT / "templates/member-account.yaml"
# What a step calls with the member role's credentials; the case table, the evidence bucket and its key stay at home.
SERVICES = {"ec2", "ebs", "autoscaling", "elasticloadbalancing", "iam", "kms", "cloudtrail", "logs", "ssm"}
RESPONDER, MEMBER, FORENSIC = "111111111111", "222222222222", "888888888888"
KEY = f"arn:aws:kms:eu-west-1:{RESPONDER}:key/0a1b2c3d-0000-4000-8000-000000000000"
GIVEN = {
    "AWS::Partition": "aws",
    "AWS::AccountId": MEMBER,
    "ResponderAccountId": RESPONDER,
    "CordonStackName": "cordon",
    "OrganizationId": "o-a1b2c3d4e5",
    "ExternalId": "cordon-of-example",
    "RoleName": "cordon-member",
    "ContainableRoles": "*",
    "SnapshotKeyArn": KEY,
    "ForensicAccountId": FORENSIC,
    "StateMachineName": "cordon-contain",
}
# What those who read a copy do with its key; encrypt-snapshots does everything with it, and nobody else anything.
WITH_SNAPSHOT_KEY = {"hash-snapshots": {"kms:Decrypt"}}
CONDITIONS = {"HasSnapshotKey": "SnapshotKeyArn", "HasForensicAccount": "ForensicAccountId"}


@cache
def template() -> dict[str, Any]:
    return yaml.load(TEMPLATE.read_text(encoding="utf-8"), Loader)


def role(given: dict[str, str] = GIVEN) -> dict[str, Any]:
    return rendered(template()["Resources"]["Role"]["Properties"], given)


def policies(given: dict[str, str] = GIVEN) -> list[dict[str, Any]]:
    """The documents of the policies that the role gets, for which two parameters have a say."""
    managed = [one for one in template()["Resources"].values() if one["Type"] == "AWS::IAM::ManagedPolicy"]
    made = [one for one in managed if "Condition" not in one or given[CONDITIONS[one["Condition"]]]]
    return [rendered(one["Properties"]["PolicyDocument"], given) for one in made]


def statements(given: dict[str, str] = GIVEN) -> list[dict[str, Any]]:
    return [statement for policy in policies(given) for statement in policy["Statement"]]


def acting() -> set[str]:
    """The functions that call with a target's credentials."""

    def acts(name: str) -> bool:
        sources = [path.read_text("utf-8") for path in (FUNCTIONS / name / "src").glob("*.rs") if path.name != "tests.rs"]
        return any(entry in source for source in sources for entry in ("serve_step(", "serve_reversible_step(", "aws.of("))

    return {name for name in functions() if acts(name)}


def elsewhere(name: str, actions: Iterable[str]) -> set[str]:
    """Those of a function's actions that it needs where the instance is."""
    def is_there(action: str) -> bool:
        service = action.split(":")[0]
        return action in WITH_SNAPSHOT_KEY.get(name, set()) or service in SERVICES - {"kms"} or service == "kms" and "kms:*" in UNNAMED.get(name, set())

    return {action for action in actions if is_there(action)}
