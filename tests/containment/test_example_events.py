"""The events that people try functions with are good ones: each is what its function takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from support.stack import PROJECT, LocalStack
from support.victim import build_victims

EVENTS = PROJECT / "events"
EXAMPLE = "i-0123456789abcdef0"
FUNCTIONS = sorted(path.stem for path in EVENTS.glob("*.json") if (PROJECT / "functions" / path.stem).is_dir())


def event(name: str) -> Any:
    return json.loads((EVENTS / f"{name}.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["contain", "contain-dry-run"])
def test_an_input_of_the_state_machine_is_as_its_schema_says(name: str) -> None:
    jsonschema.validate(event(name), event("input.schema"))


@pytest.mark.parametrize("capture", [{}, {"CaptureVolatile": True}, {"CaptureVolatile": True, "CaptureMemory": True, "CaptureMode": "CaptureFirst"}])
def test_the_schema_takes_a_capture_as_intake_does(capture: dict[str, Any]) -> None:
    jsonschema.validate({**event("contain"), **capture}, event("input.schema"))


@pytest.mark.parametrize(
    "capture",
    [{"CaptureMemory": True}, {"CaptureMode": "IsolateFirst"}, {"CaptureVolatile": False, "CaptureMemory": True},
     {"CaptureVolatile": True, "CaptureMode": "Never"}],
)  # fmt: skip
def test_the_schema_refuses_a_memory_image_or_a_mode_without_a_capture(capture: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**event("contain"), **capture}, event("input.schema"))


def test_the_schemas_are_schemas() -> None:
    for path in Path(EVENTS).glob("*.schema.json"):
        jsonschema.Draft202012Validator.check_schema(json.loads(path.read_text(encoding="utf-8")))


def test_a_finding_is_an_input_of_the_state_machine_too_as_its_event_comes(stack: LocalStack) -> None:
    finding = json.dumps(event("contain-finding"))
    payload = {"Input": json.loads(finding.replace(EXAMPLE, "i-0aaaaaaaaaaaaaaaa")), "Execution": event("intake")["Execution"]}
    machine = stack.outputs["StateMachineArn"].rsplit(":", 1)[1]
    said = json.loads(stack.client("lambda").invoke(FunctionName=f"{machine}-intake", Payload=json.dumps(payload))["Payload"].read())
    assert [target["InstanceId"] for target in said["Targets"]] == ["i-0aaaaaaaaaaaaaaaa"]
    assert said["Trigger"]["Source"] == "GuardDuty" and "RequestApproval" in said["Targets"][0]["Approval"]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_functions_event_is_one_that_the_function_takes(stack: LocalStack, name: str) -> None:
    (victim,) = build_victims(stack)
    machine = stack.outputs["StateMachineArn"].rsplit(":", 1)[1]
    payload = (EVENTS / f"{name}.json").read_text(encoding="utf-8").replace(EXAMPLE, victim.instance)
    payload = payload.replace("instance-profile/web", victim.profile.split(":instance-", 1)[-1] if ":" in victim.profile else f"instance-profile/{victim.profile}")
    answer = stack.client("lambda").invoke(FunctionName=f"{machine}-{name}", Payload=payload)
    said = json.loads(answer["Payload"].read())
    assert "FunctionError" not in answer, said
    assert said.get("Step", name) == name
    assert {"Status", "Targets", "Facts", "Verdict", "Sent", "batchItemFailures"} & set(said)


def test_an_event_that_is_none_is_refused_by_the_name_that_the_workflow_matches(stack: LocalStack) -> None:
    machine = stack.outputs["StateMachineArn"].rsplit(":", 1)[1]
    answer = stack.client("lambda").invoke(FunctionName=f"{machine}-isolate-network", Payload=json.dumps({"InstanceId": "banana"}))
    said = json.loads(answer["Payload"].read())
    assert answer["FunctionError"] and said["errorType"] == "InvalidInput"
