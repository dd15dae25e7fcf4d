"""Other accounts that Cordon may act in, and the role that leads into one: member-account.yaml, deployed there as its owner would."""

from __future__ import annotations

from contextlib import suppress

import boto3
from botocore.config import Config

from .stack import ACCOUNT, OURSELVES, PROJECT, LocalStack

MEMBER = "210987654321"
NO_ROLE = "345678901234"  # named in MemberAccounts, but nobody has deployed the role there
OTHER_ID = "456789012345"  # its owner has deployed the role with another external id
STRANGER = "333333333333"  # not named

ROLE = "cordon/cordon-member"
EXTERNAL_ID = "cordon-tests"
ORGANIZATION = "o-exampleorgid"
# What template.yaml has to be told about them.
PARAMETERS = {"MemberAccounts": f"{MEMBER},{NO_ROLE},{OTHER_ID}", "OrganizationId": ORGANIZATION, "ExternalId": EXTERNAL_ID}


def deploy_member_role(stack: LocalStack, account: str, **changed: str) -> str:
    """The role's ARN, once moto's CloudFormation has made it in that account; an account has one, however many tests ask for it."""
    given = {"ResponderAccountId": ACCOUNT, "CordonStackName": "cordon", "OrganizationId": ORGANIZATION, "ExternalId": EXTERNAL_ID, **changed}
    # Not stack.client: at home, ministack plays this service.
    cloudformation = boto3.client(
        "cloudformation", endpoint_url=stack.moto.endpoint, region_name=stack.region, aws_access_key_id=account, aws_secret_access_key="test",
        config=Config(user_agent_appid=OURSELVES),
    )  # fmt: skip
    with suppress(cloudformation.exceptions.AlreadyExistsException):
        cloudformation.create_stack(
            StackName="cordon-member", TemplateBody=(PROJECT / "templates/member-account.yaml").read_text(encoding="utf-8"),
            Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in given.items()], Capabilities=["CAPABILITY_NAMED_IAM"],
        )  # fmt: skip
    made = cloudformation.describe_stacks(StackName="cordon-member")["Stacks"][0]["Outputs"]
    return {output["OutputKey"]: output["OutputValue"] for output in made}["RoleArn"]
