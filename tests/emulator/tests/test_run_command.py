"""Run Command: managed hosts and commands."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any

import pytest
from botocore.exceptions import ClientError

from support.stack import LocalStack

proves = pytest.mark.proves

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


@proves("moto.ssm.commands.managed_hosts")
def test_a_managed_host_has_its_platform_and_ping_status(moto: LocalStack) -> None:
    online, lost = host(moto), host(moto, Ping="ConnectionLost", Platform="Windows")

    def listed(instance: str) -> list[dict[str, Any]]:
        filters = [{"Key": "InstanceIds", "Values": [instance]}]
        return moto.client("ssm").describe_instance_information(Filters=filters)["InstanceInformationList"]

    assert [(one["PingStatus"], one["PlatformType"]) for one in listed(online) + listed(lost)] == [("Online", "Linux"), ("ConnectionLost", "Windows")]
    assert listed("i-00000000000000000") == []


@proves("moto.ssm.commands.send")
def test_a_command_needs_a_document_managed_hosts_and_valid_parameters(moto: LocalStack) -> None:
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


@proves("moto.ssm.commands.send")
@pytest.mark.parametrize("agent, through", [("3.3.2746.0", "variable"), ("3.2.582.0", "text")])
def test_a_host_runs_the_script_with_its_parameters(moto: LocalStack, agent: str, through: str) -> None:
    name = document(
        moto, 'echo "${SSM_Word-none} {{ Word }}"', Word={"type": "String", "allowedPattern": "^[a-z]*$", "interpolationType": "ENV_VAR"}
    )
    instance = host(moto, Agent=agent)
    invocation = ended(moto, instance, send(moto, instance, name, Parameters={"Word": ["hello"]}))
    assert invocation["StandardOutputContent"] == ("hello hello\n" if through == "variable" else "none hello\n")


@proves("moto.ssm.commands.invocations")
def test_an_invocation_appears_late_and_ends_with_the_scripts_exit_code(moto: LocalStack) -> None:
    instance = host(moto)
    command = send(moto, instance, document(moto, "echo out; echo err >&2; exit 3"))
    with pytest.raises(ClientError) as early:
        moto.client("ssm").get_command_invocation(CommandId=command, InstanceId=instance)
    assert early.value.response["Error"]["Code"] == "InvocationDoesNotExist"
    invocation = ended(moto, instance, command)
    assert (invocation["Status"], invocation["ResponseCode"], invocation["StandardErrorContent"]) == ("Failed", 3, "err\n")


def test_a_script_is_stopped_at_the_documents_timeout(moto: LocalStack) -> None:
    instance = host(moto)
    assert ended(moto, instance, send(moto, instance, document(moto, "sleep 60")))["StatusDetails"] == "Execution Timed Out"


@pytest.mark.parametrize("behaviour, status", [("undeliverable", "Undeliverable"), ("terminated", "Terminated"), ("delayed", "Success")])
def test_an_invocation_shows_how_the_host_took_the_command(moto: LocalStack, behaviour: str, status: str) -> None:
    instance = host(moto, Behaviour=behaviour)
    assert ended(moto, instance, send(moto, instance, document(moto, "true")))["StatusDetails"] == status


@proves("moto.ssm.commands.cancel")
def test_a_cancelled_command_ends_with_everything_it_started(moto: LocalStack, tmp_path: Any) -> None:
    instance, mark = host(moto), tmp_path / "mark"
    command = send(moto, instance, document(moto, f"(sleep 1.5; : >{mark}) & wait"))
    time.sleep(0.5)
    moto.client("ssm").cancel_command(CommandId=command, InstanceIds=[instance])
    assert ended(moto, instance, command)["StatusDetails"] == "Cancelled"
    time.sleep(1.5)
    assert not mark.exists()
