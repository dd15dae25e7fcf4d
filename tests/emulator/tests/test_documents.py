"""Systems Manager: documents in templates."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from support.stack import LocalStack

proves = pytest.mark.proves

@proves("ministack.ssm.documents_in_templates")
def test_a_document_is_created_updated_and_deleted_with_its_stack(bare_stack: LocalStack) -> None:
    cloudformation, ssm, name = bare_stack.client("cloudformation"), bare_stack.client("ssm"), f"doc-{uuid.uuid4().hex[:8]}"

    def template(word: str) -> str:
        step = {"action": "aws:runShellScript", "name": "run", "inputs": {"runCommand": [f"echo {word}"]}}
        content = {"schemaVersion": "2.2", "mainSteps": [step]}
        properties = {"Name": name, "DocumentType": "Command", "DocumentFormat": "JSON", "UpdateMethod": "NewVersion", "Content": content}
        resources = {"Document": {"Type": "AWS::SSM::Document", "Properties": properties}}
        return json.dumps({"Resources": resources, "Outputs": {"Name": {"Value": {"Ref": "Document"}}}})

    def settled(status: str) -> dict[str, Any]:
        deadline = time.monotonic() + 20
        while (found := cloudformation.describe_stacks(StackName=name)["Stacks"][0])["StackStatus"] != status:
            assert time.monotonic() < deadline, found
            time.sleep(0.2)
        return found

    cloudformation.create_stack(StackName=name, TemplateBody=template("one"))
    assert settled("CREATE_COMPLETE")["Outputs"][0]["OutputValue"] == name
    cloudformation.update_stack(StackName=name, TemplateBody=template("two"))
    settled("UPDATE_COMPLETE")
    assert "echo two" in ssm.get_document(Name=name)["Content"]
    cloudformation.delete_stack(StackName=name)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            ssm.get_document(Name=name)
        except ClientError as gone:
            assert gone.response["Error"]["Code"] == "InvalidDocument"
            return
        time.sleep(0.2)
    raise AssertionError("the document outlives its stack")


@proves("moto.ssm.documents.content_as_map")
def test_a_document_of_a_member_account_can_have_its_content_as_a_map(moto: LocalStack) -> None:
    """There, moto plays CloudFormation too."""
    account, step = "210987654321", {"action": "aws:runShellScript", "name": "run", "inputs": {"runCommand": ["true"]}}
    properties = {"DocumentType": "Command", "DocumentFormat": "JSON", "Content": {"schemaVersion": "2.2", "mainSteps": [step]}}
    keys = {"aws_access_key_id": account, "aws_secret_access_key": "test"}
    cloudformation = boto3.client("cloudformation", endpoint_url=moto.moto.endpoint, region_name=moto.region, **keys)
    template = {"Resources": {"Document": {"Type": "AWS::SSM::Document", "Properties": {**properties, "Name": "by-a-template"}}}}
    cloudformation.create_stack(StackName="document", TemplateBody=json.dumps(template))
    content = moto.client("ssm", account=account).get_document(Name="by-a-template")["Content"]
    assert json.loads(content)["mainSteps"] == [step]
