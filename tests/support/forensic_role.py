"""The role of templates/forensic-account.yaml, its parameters filled in."""

from __future__ import annotations

from functools import cache
from typing import Any

import yaml

from .iam import listed, rendered, steps_of
from .stack import PROJECT
from .template import Loader
TEMPLATE = PROJECT / "templates/forensic-account.yaml"
RESPONDER, ACCOUNT, ORGANIZATION = "111111111111", "888888888888", "o-a1b2c3d4e5"
REGION, ELSEWHERE = "eu-central-1", "eu-west-1"
SOURCE_KEY = f"arn:aws:kms:{ELSEWHERE}:{RESPONDER}:key/0a1b2c3d-0000-4000-8000-000000000000"
KEY = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/0a1b2c3d-0000-4000-8000-000000000001"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/cordon/cordon-forensic"
ADMINISTRATOR = f"arn:aws:iam::{ACCOUNT}:role/key-administrator"
GIVEN = {
    "AWS::Partition": "aws", "AWS::AccountId": ACCOUNT, "AWS::Region": REGION, "ResponderAccountId": RESPONDER, "CordonStackName": "cordon",
    "OrganizationId": ORGANIZATION, "ExternalId": "cordon-of-example", "RoleName": "cordon-forensic", "SourceKeyArn": SOURCE_KEY,
    "LeastLockDays": "7", "KeyAdministratorArn": ADMINISTRATOR,
}  # fmt: skip


@cache
def template() -> dict[str, Any]:
    return yaml.load(TEMPLATE.read_text(encoding="utf-8"), Loader)


def filled(value: Any, given: dict[str, str]) -> Any:
    """As CloudFormation would write it, for what refers to this template's own resources too."""
    if isinstance(value, dict):
        return {name: filled(one, given) for name, one in value.items()}
    if isinstance(value, list):
        return [filled(one, given) for one in value]
    return {"!GetAtt Key.Arn": KEY, "!GetAtt Role.Arn": ROLE}.get(value) or rendered(value, given) if isinstance(value, str) else value


def statements(given: dict[str, str] = GIVEN) -> list[dict[str, Any]]:
    managed = [one for one in template()["Resources"].values() if one["Type"] == "AWS::IAM::ManagedPolicy"]
    return [filled(s, given) for one in managed for s in one["Properties"]["PolicyDocument"]["Statement"]]


def allowed(step: str) -> set[str]:
    return {action for s in statements() if s["Effect"] == "Allow" and step in steps_of(s) for action in listed(s["Action"])}
