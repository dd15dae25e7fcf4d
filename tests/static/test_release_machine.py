"""The release workflow, its functions and its role agree; no step of it stops another, and it goes back in the right order."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonata
import jsonschema
import pytest

from support.stack import PROJECT
from support.template import MACHINE, RELEASE, functions, invocations, kebab, machine, states, tasks, template, validate_machine


EVENTS = PROJECT / "events"
CONFIRMED = {"Confirm profile", "Confirm registration", "Confirm group"}
ORDER = [
    "revoke-credentials", "detach-profile", "isolate-network", "deregister-targets", "protect-instance", "preserve-volumes",
    "create-flow-logs", "tag-resources", "detach-autoscaling",
]  # fmt: skip


def of_the_map() -> dict[str, dict]:
    return machine(RELEASE)["States"]["Release each instance"]["ItemProcessor"]["States"]


def test_the_validator_finds_nothing(tmp_path: Path) -> None:
    checked = validate_machine(RELEASE.read_text(encoding="utf-8"), tmp_path / "release.json")
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_placeholder_has_a_substitution_and_the_role_invokes_exactly_its_functions() -> None:
    resource = template()["Resources"]["Release"]["Properties"]
    assert set(re.findall(r"\$\{(\w+)\}", RELEASE.read_text(encoding="utf-8"))) == set(resource["DefinitionSubstitutions"])
    (policy,) = resource["Policies"]
    invoke, _ = policy["Statement"]
    assert invoke["Action"] == "lambda:InvokeFunction"
    assert {kebab(arn.removeprefix("!GetAtt ").removesuffix(".Arn")) for arn in invoke["Resource"]} == set(invocations(RELEASE).values())


def test_what_makes_the_instance_whole_comes_first_and_what_sends_it_traffic_after_its_network() -> None:
    inner, name, order = of_the_map(), "Start release", []
    while name != "Verify release":
        state = inner[name]
        if state["Type"] == "Task":
            order.append(invocations(RELEASE)[name])
        name = state.get("Next") or state["Default"]
    assert order == ORDER


def test_the_steps_are_those_that_the_plan_names_and_the_schema_takes() -> None:
    assert json.loads((PROJECT / "docs" / "steps.json").read_text(encoding="utf-8"))["Released"] == ORDER
    schema = json.loads((EVENTS / "release-input.schema.json").read_text(encoding="utf-8"))
    assert schema["properties"]["Steps"]["items"]["enum"] == ORDER


def test_no_step_stops_another_and_an_error_goes_on_as_an_answer_would() -> None:
    for name, task in tasks(RELEASE).items():
        if name not in ("Validate input", "Report"):
            assert task["Catch"][-1]["ErrorEquals"] == ["States.ALL"], name
    for name, state in of_the_map().items():
        if state["Type"] == "Task" and invocations(RELEASE)[name] in ORDER:
            (catch,) = state["Catch"]
            assert catch["Next"] == state["Next"], name


def test_every_invocation_retries_as_those_of_the_containment_do() -> None:
    usual = json.dumps(tasks(MACHINE)["Isolate network"]["Retry"])
    for name in invocations(RELEASE):
        assert json.dumps(tasks(RELEASE)[name]["Retry"]) == usual, name
    assert "NotReleased" not in usual


def test_what_settles_is_asked_again_and_not_for_ever() -> None:
    inner = of_the_map()
    for choice, asked in (("Settled?", "Ready for its group?"), ("Attached to its group?", "Verify release")):
        (wait,) = inner[choice]["Choices"]
        assert "'InProgress'" in wait["Condition"] and "< 1800" in wait["Condition"]
        assert inner[wait["Next"]]["Type"] == "Wait" and inner[choice]["Default"] == asked
    assert {name for name in inner if name.startswith("Confirm")} == CONFIRMED


def test_an_instance_that_is_not_whole_is_not_given_to_a_group_that_would_terminate_it() -> None:
    gate = of_the_map()["Ready for its group?"]
    (unfit,) = gate["Choices"]
    assert (unfit["Next"], gate["Default"]) == ("Not ready for its group", "Attach to Auto Scaling")

    def is_unfit(outcomes: list[dict], release: tuple[str, ...] = ("detach-autoscaling",)) -> bool:
        condition = jsonata.Jsonata(unfit["Condition"].removeprefix("{%").removesuffix("%}"))
        frame = condition.create_frame()
        frame.bind("states", {"input": outcomes})
        frame.bind("target", {"Release": list(release)})
        return condition.evaluate(None, frame)

    for step in ("isolate-network", "deregister-targets", "detach-profile"):
        for broken in ({"Status": "Failed"}, {"Status": "Unsupported"}, {"Status": "InProgress"}, {"Error": "Throttled"}):
            assert is_unfit([{"Step": step, **broken}])
            assert not is_unfit([{"Step": step, **broken}], release=("isolate-network",)), "nobody asked for its group"
            assert not is_unfit([{"Step": step, **broken}, {"Step": step, "Status": "Done"}]), "the latest outcome counts"
        assert not is_unfit([{"Step": step, "Status": "NotApplicable"}])
    assert not is_unfit([{"Step": "tag-resources", "Status": "Failed"}])


def test_every_state_says_in_a_sentence_what_it_is_for() -> None:
    for name, state in states(machine(RELEASE)):
        assert state["Comment"].endswith("."), name


def test_a_task_outlasts_its_function() -> None:
    default = template()["Globals"]["Function"]["Timeout"]
    for name, function in invocations(RELEASE).items():
        assert tasks(RELEASE)[name]["TimeoutSeconds"] >= functions()[function]["Properties"].get("Timeout", default), name


def test_a_bad_end_of_either_workflow_is_announced_by_the_rule_outside_them() -> None:
    rule = template()["Resources"]["ExecutionEndedBadly"]["Properties"]["EventPattern"]["detail"]
    assert rule["stateMachineArn"] == ["!Ref Contain", "!Ref Release"]


def test_no_name_of_the_containment_can_be_taken_for_one_of_the_release() -> None:
    """Notifications and the report tell the two apart by the name, and build each one's command from the other's."""
    pattern = re.compile(template()["Parameters"]["StateMachineName"]["AllowedPattern"])
    assert pattern.fullmatch("cordon-contain") and pattern.fullmatch("release") and pattern.fullmatch("my-release-2")
    assert not pattern.fullmatch("cordon-release")
    assert template()["Resources"]["Release"]["Properties"]["Name"] == "!Sub ${StateMachineName}-release"


@pytest.mark.parametrize("more", [{}, {"Steps": ["isolate-network"], "DryRun": True}, {"AttachAutoScaling": True, "CloseCase": True}])
def test_the_schema_takes_what_the_function_takes(more: dict) -> None:
    schema = json.loads((EVENTS / "release-input.schema.json").read_text(encoding="utf-8"))
    jsonschema.validate({**json.loads((EVENTS / "release.json").read_text(encoding="utf-8")), **more}, schema)


@pytest.mark.parametrize(
    "more", [{"Steps": []}, {"Steps": ["create-snapshots"]}, {"Owner": "me"}, {"AttachAutoScaling": False, "Steps": ["detach-autoscaling"]}]
)
def test_the_schema_refuses_what_the_function_refuses(more: dict) -> None:
    schema = json.loads((EVENTS / "release-input.schema.json").read_text(encoding="utf-8"))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**json.loads((EVENTS / "release.json").read_text(encoding="utf-8")), **more}, schema)
