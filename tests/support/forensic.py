"""The forensic account: forensic-account.yaml deployed there as its owner would, and Cordon's functions told about it."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import Iterator

import boto3
from botocore.config import Config

from .member import EXTERNAL_ID, ORGANIZATION
from .stack import ACCOUNT, OURSELVES, PROJECT, LocalStack

FORENSIC = "888888888888"
# The functions that template.yaml tells about it.
TOLD = ("encrypt-snapshots", "share-snapshots", "copy-snapshots", "lock-snapshots", "verify-containment")


def deploy_forensic_account(stack: LocalStack, region: str, role: str) -> dict[str, str]:
    """The settings of Cordon's functions, once moto's CloudFormation has made the key and the role over there."""
    given = {
        "ResponderAccountId": ACCOUNT, "CordonStackName": "cordon", "OrganizationId": ORGANIZATION, "ExternalId": EXTERNAL_ID, "RoleName": role,
        "SourceKeyArn": stack.outputs["KeyArn"],
    }  # fmt: skip
    # Not stack.client: at home, ministack plays this service.
    cloudformation = boto3.client(
        "cloudformation", endpoint_url=stack.moto.endpoint, region_name=region, aws_access_key_id=FORENSIC, aws_secret_access_key="test",
        config=Config(user_agent_appid=OURSELVES),
    )  # fmt: skip
    cloudformation.create_stack(
        StackName=role, TemplateBody=(PROJECT / "templates/forensic-account.yaml").read_text(encoding="utf-8"),
        Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in given.items()], Capabilities=["CAPABILITY_NAMED_IAM"],
    )  # fmt: skip
    made = {one["OutputKey"]: one["OutputValue"] for one in cloudformation.describe_stacks(StackName=role)["Stacks"][0]["Outputs"]}
    return {"FORENSIC_ACCOUNT": FORENSIC, "FORENSIC_KEY_ARN": made["KeyArn"], "FORENSIC_ROLE": f"cordon/{made['RoleName']}"}


@contextmanager
def told(stack: LocalStack, **settings: str) -> Iterator[None]:
    """Cordon's functions, as template.yaml configures them where it is given a forensic account."""
    with ExitStack() as configured:
        for function in TOLD:
            configured.enter_context(stack.reconfigured(function, **settings))
        yield
