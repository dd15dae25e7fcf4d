"""Systems Manager's Run Command on the local stack, each mend against the behaviour that AWS documents."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any

import pytest
from botocore.exceptions import ClientError

from support.stack import LocalStack

FINAL = {"Success", "Failed", "Cancelled", "Execution Timed Out", "Delivery Timed Out", "Undeliverable", "Terminated", "AccessDenied"}


def document(moto: LocalStack, script: str, **parameters: Any) -> str:
    name = f"test-{uuid.uuid4().hex[:8]}"
    step = {"action": "aws:runShellScript", "name": "run", "inputs": {"timeoutSeconds": "2", "runCommand": [script]}}
    content = {"schemaVersion": "2.2", "description": name, "parameters": parameters, "mainSteps": [step]}
    moto.client("ssm").create_document(Name=name, Content=json.dumps(content), DocumentType="Command", DocumentFormat="JSON")
    return name


def host(moto: LocalStack, **settings: Any) -> str:
    instance = f"i-{uuid.uuid4().hex[:17]}"
    moto.manage(instance, **settings)
    return instance


def send(moto: LocalStack, instance: str, name: str, **more: Any) -> str:
    return moto.client("ssm").send_command(InstanceIds=[instance], DocumentName=name, **more)["Command"]["CommandId"]


def ended(moto: LocalStack, instance: str, command: str) -> dict[str, Any]:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            invocation = moto.client("ssm").get_command_invocation(CommandId=command, InstanceId=instance)
        except moto.client("ssm").exceptions.InvocationDoesNotExist:
            invocation = {"StatusDetails": None}
        if invocation["StatusDetails"] in FINAL:
            return invocation
        time.sleep(0.1)
    raise AssertionError(invocation)


def test_mend_managed_hosts(moto: LocalStack) -> None:
    online, lost = host(moto), host(moto, Ping="ConnectionLost", Platform="Windows")

    def listed(instance: str) -> list[dict[str, Any]]:
        filters = [{"Key": "InstanceIds", "Values": [instance]}]
        return moto.client("ssm").describe_instance_information(Filters=filters)["InstanceInformationList"]

    assert [(one["PingStatus"], one["PlatformType"]) for one in listed(online) + listed(lost)] == [("Online", "Linux"), ("ConnectionLost", "Windows")]
    assert listed("i-00000000000000000") == []


def test_mend_send_command_refuses_what_aws_refuses(moto: LocalStack) -> None:
    name = document(moto, "true", Word={"type": "String", "default": "", "allowedPattern": "^[a-z]*$"})
    for instance, document_name, parameters, code in (
        (host(moto), "no-such-document", {}, "InvalidDocument"),
        ("i-00000000000000000", name, {}, "InvalidInstanceId"),
        (host(moto), name, {"Word": ["$(id)"]}, "InvalidParameters"),
        (host(moto), name, {"Other": ["x"]}, "InvalidParameters"),
    ):
        with pytest.raises(ClientError) as refused:
            send(moto, instance, document_name, Parameters=parameters)
        assert refused.value.response["Error"]["Code"] == code


@pytest.mark.parametrize("agent, through", [("3.3.2746.0", "variable"), ("3.2.582.0", "text")])
def test_mend_send_command_runs_the_script_with_its_parameters(moto: LocalStack, agent: str, through: str) -> None:
    name = document(
        moto, 'echo "${SSM_Word-none} {{ Word }}"', Word={"type": "String", "allowedPattern": "^[a-z]*$", "interpolationType": "ENV_VAR"}
    )
    instance = host(moto, Agent=agent)
    invocation = ended(moto, instance, send(moto, instance, name, Parameters={"Word": ["hello"]}))
    assert invocation["StandardOutputContent"] == ("hello hello\n" if through == "variable" else "none hello\n")


def test_mend_command_invocations_appear_late_and_end_with_the_scripts_exit_code(moto: LocalStack) -> None:
    instance = host(moto)
    command = send(moto, instance, document(moto, "echo out; echo err >&2; exit 3"))
    with pytest.raises(ClientError) as early:
        moto.client("ssm").get_command_invocation(CommandId=command, InstanceId=instance)
    assert early.value.response["Error"]["Code"] == "InvocationDoesNotExist"
    invocation = ended(moto, instance, command)
    assert (invocation["Status"], invocation["ResponseCode"], invocation["StandardErrorContent"]) == ("Failed", 3, "err\n")


def test_mend_command_invocations_stop_at_the_documents_time_out(moto: LocalStack) -> None:
    instance = host(moto)
    assert ended(moto, instance, send(moto, instance, document(moto, "sleep 60")))["StatusDetails"] == "Execution Timed Out"


@pytest.mark.parametrize("behaviour, status", [("undeliverable", "Undeliverable"), ("terminated", "Terminated"), ("delayed", "Success")])
def test_mend_command_invocations_tell_how_a_host_took_it(moto: LocalStack, behaviour: str, status: str) -> None:
    instance = host(moto, Behaviour=behaviour)
    assert ended(moto, instance, send(moto, instance, document(moto, "true")))["StatusDetails"] == status


def test_mend_cancel_command_ends_the_script_and_what_it_started(moto: LocalStack, tmp_path: Any) -> None:
    instance, mark = host(moto), tmp_path / "mark"
    command = send(moto, instance, document(moto, f"(sleep 1.5; : >{mark}) & wait"))
    time.sleep(0.5)
    moto.client("ssm").cancel_command(CommandId=command, InstanceIds=[instance])
    assert ended(moto, instance, command)["StatusDetails"] == "Cancelled"
    time.sleep(1.5)
    assert not mark.exists()


def test_mend_documents_in_templates(stack: LocalStack) -> None:
    cloudformation, ssm, name = stack.client("cloudformation"), stack.client("ssm"), f"doc-{uuid.uuid4().hex[:8]}"

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
