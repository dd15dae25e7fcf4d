"""The template, the state machine, the functions and their roles agree, and validators find nothing."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from support.home_role import FORENSIC, MEMBER, UNNAMED, WITHOUT_RESOURCE, acts_on_a_target, allowed, needed
from support.stack import PROJECT
from support.template import FUNCTIONS, MACHINE, RELEASE, TOOLS, functions, invocations, kebab, machine, run, states, tasks, template, validate_machine


# Functions that the workflow does not call: a queue does.
OUTSIDE = {"watch-drift"}


# --- One name for one thing --------------------------------------------------------------------------------------


def test_every_function_is_a_folder_a_resource_and_a_task_of_the_same_name() -> None:
    folders = {path.name for path in FUNCTIONS.iterdir() if path.is_dir()}
    assert folders == set(functions()) == set(invocations().values()) | set(invocations(RELEASE).values()) | OUTSIDE


def test_every_function_is_built_from_the_crate_of_its_name() -> None:
    for name, function in functions().items():
        assert function["Metadata"] == {"BuildMethod": "rust-cargolambda", "BuildProperties": {"Binary": name}}
        assert function["Properties"]["FunctionName"] == f"!Sub ${{StateMachineName}}-{name}"


def test_the_functions_stand_in_the_order_in_which_the_workflow_uses_them() -> None:
    """notify stands with its topic, and watch-drift, which the workflow does not call, with its queue."""
    used = list(dict.fromkeys([*invocations().values(), *invocations(RELEASE).values()]))
    elsewhere = {"notify"} | OUTSIDE
    assert [name for name in functions() if name not in elsewhere] == [name for name in used if name not in elsewhere]


def test_every_placeholder_of_the_state_machine_has_a_substitution_and_none_is_left_over() -> None:
    used = set(re.findall(r"\$\{(\w+)\}", MACHINE.read_text(encoding="utf-8")))
    assert used == set(template()["Resources"]["Contain"]["Properties"]["DefinitionSubstitutions"])


def test_every_function_has_an_event_to_try_it_with() -> None:
    assert {path.stem for path in (PROJECT / "events").glob("*.json")} >= set(functions()) | {"contain", "contain-dry-run"}


# --- The state machine -------------------------------------------------------------------------------------------


def test_every_invocation_retries_what_passes_with_jitter_and_in_the_same_way() -> None:
    by_attempts: dict[int, list[str]] = {}
    alike = set()
    for name in invocations():
        (retry,) = tasks()[name]["Retry"]
        assert retry["JitterStrategy"] == "FULL" and {"Throttled", "Unavailable", "Sandbox.Timedout"} <= set(retry["ErrorEquals"])
        assert not {"AccessDenied", "InvalidInput", "NotContained", "States.ALL"} & set(retry["ErrorEquals"])
        # A question that nobody has answered in time is not asked again.
        assert ("States.Timeout" in retry["ErrorEquals"]) == (name != "Request approval")
        by_attempts.setdefault(retry["MaxAttempts"], []).append(name)
        alike.add(json.dumps({**retry, "MaxAttempts": 0, "ErrorEquals": [e for e in retry["ErrorEquals"] if e != "States.Timeout"]}))
    assert len(alike) == 1
    impatient = ["Capture volatile data", "Detach from Auto Scaling", "Detach from Auto Scaling (deferred)"]
    assert sorted(by_attempts[1]) == impatient, "isolation does not wait long for the group, nor for a host; a capture is asked about again anyway"


@pytest.mark.parametrize("path", [MACHINE, RELEASE], ids=["contain", "release"])
def test_retry_and_catch_are_a_line_each(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert sum(line.strip().startswith('"Retry": [{') and line.endswith("}],") for line in lines) == len(tasks(path))
    caught = sum(len(state.get("Catch", [])) for _, state in states(machine(path)))
    assert sum(line.strip().removeprefix('"Catch": [').startswith('{"ErrorEquals"') for line in lines) == caught


@pytest.mark.parametrize("path", [MACHINE, RELEASE], ids=["contain", "release"])
def test_every_step_keeps_its_first_and_its_latest_outcome_in_the_same_way(path: Path) -> None:
    times = "'Began': $states.context.State.EnteredTime, 'Ended': $now()"
    kept = "[$states.input[Step != 'STEP'], $states.input[Step = 'STEP'][0], "
    done = "{% " + kept + "$merge([$states.result.Payload, {" + times + "}])] %}"
    failed = "{% " + kept + "{'Step': 'STEP', 'Error': $states.errorOutput.Error, 'Cause': $states.errorOutput.Cause, " + times + "}] %}"
    no_steps = {"intake", "plan-release", "describe-instance", "prepare-fleet", "verify-containment", "verify-release", "seal-evidence", "report", "notify"}
    for name, step in invocations(path).items():
        if step not in no_steps:
            task = tasks(path)[name]
            assert task["Output"] == done.replace("STEP", step), name
            assert [catch["Output"] for catch in task["Catch"]] == [failed.replace("STEP", step)], name


def test_a_deferred_step_is_the_step_itself() -> None:
    def without_next(state: dict[str, Any]) -> dict[str, Any]:
        catch = [{**catch, "Next": None} for catch in state["Catch"]]
        return {**{key: value for key, value in state.items() if key not in ("Next", "End")}, "Catch": catch}

    named = dict(states(machine()))
    deferred = [name for name in named if name.endswith(" (deferred)")]
    assert len(deferred) == 6
    for name in deferred:
        assert without_next(named[name]) == without_next(named[name.removesuffix(" (deferred)")]), name


def test_no_step_can_stop_another() -> None:
    for name, task in tasks().items():
        if name not in ("Validate input", "Report"):  # whose end is the execution's
            assert task["Catch"][-1]["ErrorEquals"] == ["States.ALL"], name


def test_a_caught_error_goes_on_to_the_state_that_success_goes_to() -> None:
    branches = [branch for _, state in states(machine()) if state["Type"] == "Parallel" for branch in state["Branches"]]
    assert len(branches) == 11
    inside = {name: state for branch in branches for name, state in states(branch)}
    for name, state in inside.items():
        if state["Type"] == "Task" and "Next" in state and name not in ("Describe instance", "Prepare fleet"):
            assert {catch["Next"] for catch in state["Catch"]} == {state["Next"]}, name


CREDENTIALS = {"terminate-sessions", "revoke-credentials", "detach-profile"}
NETWORK = {"detach-autoscaling", "isolate-network", "deregister-targets"}


def test_whatever_disturbs_the_workload_waits_for_an_answer_or_a_capture_where_there_is_one() -> None:
    asked, first = "$exists($described.Target.Approval)", "$described.Target.Capture.Mode = 'CaptureFirst'"
    gate = f"{{% {asked} or {first} %}}"
    (contain,) = [state for name, state in states(machine()) if name == "Contain instance"]
    gated = []
    for branch in contain["Branches"]:
        called = {invocations()[name] for name, state in states(branch) if state["Type"] == "Task"}
        first_state = branch["States"][branch["StartAt"]]
        if first_state["Type"] == "Choice":
            assert first_state["Choices"][0]["Condition"] == gate
            gated.append(called)
        else:
            assert not called & (NETWORK | CREDENTIALS)
    assert gated == [NETWORK, CREDENTIALS]
    revoked = dict(states(machine()))["Revocation allowed?"]
    assert revoked["Choices"][0]["Condition"] == "{% $exists($described.Target.Capture) %}" and revoked["Default"] == "Revoke credentials"
    (settle,) = [state for name, state in states(machine()) if name == "Wait for changes to settle"]
    assert {invocations()[name] for name in settle["Branches"][0]["States"] if name.endswith("(deferred)")} == NETWORK | CREDENTIALS


def test_a_capture_comes_to_an_end_before_the_credentials_go_and_the_window_is_closed_behind_it() -> None:
    all_states = dict(states(machine()))
    over = all_states["Capture finished?"]
    assert [choice["Next"] for choice in over["Choices"]] == ["Wait for capture", "Detach from Auto Scaling (deferred)"]
    assert "InProgress" in over["Choices"][0]["Condition"] and "${CaptureDeadline}" in over["Choices"][0]["Condition"]
    assert over["Default"] == "Close capture window"
    closed = "{% $merge([$described.Target, {'CaptureWindow': false}]) %}"
    for name in ("Close capture window", "Confirm isolation"):
        assert all_states[name]["Arguments"]["Payload"] == closed
    assert all_states["Close capture window"]["Next"] == "Terminate sessions (deferred)"


def test_every_state_says_in_a_sentence_what_it_is_for() -> None:
    for name, state in states(machine()):
        assert state["Comment"].endswith("."), name


def test_a_task_outlasts_its_function_so_that_a_time_out_is_the_functions_own() -> None:
    default = template()["Globals"]["Function"]["Timeout"]
    for name, function in invocations().items():
        seconds = tasks()[name]["TimeoutSeconds"]
        # A person's time to answer is a parameter; its least value is longer than the function's.
        seconds = template()["Parameters"]["ApprovalTimeout"]["MinValue"] if isinstance(seconds, str) else seconds
        assert seconds >= functions()[function]["Properties"].get("Timeout", default), name


# --- Fleets --------------------------------------------------------------------------------------------------------


def test_a_fleet_is_a_distributed_map_of_executions_that_cannot_stop_each_other() -> None:
    named = dict(states(machine()))
    fleet, batch = named["Contain fleet"], named["Contain batch"]
    assert fleet["ItemProcessor"]["ProcessorConfig"] == {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"}
    assert fleet["ToleratedFailurePercentage"] == 100 and "${FleetConcurrency}" in fleet["MaxConcurrency"]
    assert batch["Resource"] == "arn:aws:states:::states:startExecution.sync:2"
    assert "Name" in batch["Arguments"], "a start whose answer was lost starts no second execution"
    inside = json.dumps(fleet["ItemProcessor"])
    assert not re.search(r"\$(?!states\b)(?:dryRun|quiet|trigger|leftOut|batch|settleAt)\b", inside), "a child sees no variable of its parent (aws-behaviour#distributed-map)"


def test_a_fleet_adds_no_state_to_the_way_to_isolation() -> None:
    """The decision stands in a branch of its own, beside the Map of instances, and the pace before protection only."""
    respond = machine()["States"]["Respond"]
    starts = [branch["StartAt"] for branch in respond["Branches"]]
    assert starts == ["Notify start", "Contain each instance", "Fleet?"] and machine()["States"]["Validate input"]["Next"] == "Respond"
    contain = dict(states(machine()))["Contain instance"]
    assert [branch["StartAt"] for branch in contain["Branches"]][:2] == ["Disruption allowed?", "Pace EC2 calls"]


# --- Least privilege ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(functions()))
def test_a_functions_role_allows_the_calls_it_makes_and_no_others(name: str) -> None:
    beside = UNNAMED.get(name, set())
    kms = {action for action in allowed(name) if "kms:*" in beside and action.startswith("kms:")}
    assert allowed(name) - kms == needed(name) | (beside - {"kms:*"})


def test_a_wildcard_resource_is_only_for_calls_that_support_nothing_narrower() -> None:
    for name, function in functions().items():
        for policy in function["Properties"].get("Policies", []):
            for statement in policy["Statement"]:
                if statement["Resource"] == "*":
                    actions = [statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"]
                    assert all(action.split(":")[1].startswith("Describe") or action in WITHOUT_RESOURCE for action in actions), name


def test_a_function_can_enter_a_member_account_only_in_its_own_name() -> None:
    for name, function in functions().items():
        statements = [s for policy in function["Properties"].get("Policies", []) for s in policy["Statement"]]
        entering = [s for s in statements if MEMBER & set(s["Action"])]
        assert all(statement["Condition"] == {"StringEquals": {"aws:RequestTag/CordonStep": name}} for statement in entering)
        member = ["!Sub arn:${AWS::Partition}:iam::*:role/cordon/${MemberRoleName}"] if acts_on_a_target(name) else []
        forensic = ["!Sub arn:${AWS::Partition}:iam::${ForensicAccountId}:role/cordon/${ForensicRoleName}"] if name in FORENSIC else []
        assert [statement["Resource"] for statement in entering] == member + forensic, name


def test_the_state_machine_may_invoke_its_functions_and_write_an_answer_and_the_rules_may_start_it() -> None:
    (policy,) = template()["Resources"]["Contain"]["Properties"]["Policies"]
    invoke, answer, start, stop, rule, _ = policy["Statement"]
    assert {kebab(arn.removeprefix("!GetAtt ").removesuffix(".Arn")) for arn in invoke["Resource"]} == set(invocations().values())
    assert (answer["Action"], answer["Resource"]) == ("dynamodb:UpdateItem", "!GetAtt CaseTable.Arn")
    states = "arn:${AWS::Partition}:states:${AWS::Region}:${AWS::AccountId}"
    assert (start["Action"], start["Resource"]) == ("states:StartExecution", f"!Sub {states}:stateMachine:${{StateMachineName}}"), "a fleet's batches"
    executions = [f"!Sub {states}:execution:${{StateMachineName}}{which}" for which in (":*", "/Batches:*")]
    assert (stop["Action"], stop["Resource"]) == (["states:DescribeExecution", "states:StopExecution"], executions)
    assert rule["Resource"].endswith(":rule/StepFunctionsGetEventsForStepFunctionsExecutionRule"), "AWS names no narrower one"
    (start,) = template()["Resources"]["StartContainment"]["Properties"]["Policies"]
    assert start["PolicyDocument"]["Statement"] == [{"Effect": "Allow", "Action": "states:StartExecution", "Resource": "!Ref Contain"}]


def test_nothing_that_a_rule_delivers_can_be_lost_without_an_alarm() -> None:
    resources = template()["Resources"]
    rules = {name: one["Properties"] for name, one in resources.items() if one["Type"] == "AWS::Events::Rule"}
    for rule in rules.values():
        for target in rule["Targets"]:
            assert target["DeadLetterConfig"] == {"Arn": "!GetAtt DeadLetterQueue.Arn"} and target["RetryPolicy"]
    allow = resources["DeadLetterQueuePolicy"]["Properties"]["PolicyDocument"]["Statement"][0]
    assert set(allow["Condition"]["ArnEquals"]["aws:SourceArn"]) == {f"!GetAtt {name}.Arn" for name in rules}
    alarm = resources["DeadLetterAlarm"]["Properties"]
    assert alarm["AlarmActions"] == ["!Ref Notifications"] and alarm["Threshold"] == 1


def test_a_share_is_possible_with_the_forensic_account_only_and_never_with_everybody() -> None:
    """That IAM would see it so is in test_member_role.py, of the same statements."""
    sharing = {name for name in functions() if "ec2:ModifySnapshotAttribute" in allowed(name)}
    assert sharing == {"share-snapshots"}
    (policy,) = functions()["share-snapshots"]["Properties"]["Policies"]
    denied = [s["Condition"] for s in policy["Statement"] if s["Effect"] == "Deny" and s["Action"] == "ec2:ModifySnapshotAttribute"]
    to_others = {"ForAnyValue:StringNotEquals": {"ec2:Add/userId": "!Ref ForensicAccountId"}}
    assert denied == [to_others, {"Null": {"ec2:Add/group": "false"}}]


def test_only_one_function_can_delete_evidence_and_a_release_only_what_cordon_itself_has_made() -> None:
    # A log delivery is what EC2 makes beside a flow log, and takes away if that fails; it holds no logs.
    # And a message of the queue is deleted when it is done with.
    harmless = WITHOUT_RESOURCE | {"sqs:DeleteMessage"}
    deleting = {name: {a for a in allowed(name) - harmless if ":Delete" in a} for name in functions()}
    assert {name: actions for name, actions in deleting.items() if actions} == {
        "delete-originals": {"ec2:DeleteSnapshot"},
        "create-flow-logs": {"ec2:DeleteFlowLogs"},
        "tag-resources": {"ec2:DeleteTags"},
        "revoke-credentials": {"iam:DeleteRolePolicy"},
    }
    (policy,) = functions()["tag-resources"]["Properties"]["Policies"]
    (untagging,) = [statement for statement in policy["Statement"] if statement["Action"] == "ec2:DeleteTags"]
    assert not any("snapshot" in arn for arn in untagging["Resource"]), "the snapshots' tags are evidence"


def test_accesses_to_the_evidence_are_logged_where_the_evidence_is_not() -> None:
    """ministack delivers no access logs and ignores the setting in a template."""
    resources = template()["Resources"]
    logging = resources["EvidenceBucket"]["Properties"]["LoggingConfiguration"]
    assert logging["DestinationBucketName"] == "!Ref EvidenceAccessLogs"
    assert resources["EvidenceAccessLogs"]["Type"] == "AWS::S3::Bucket"
    delivery = resources["EvidenceAccessLogsPolicy"]["Properties"]["PolicyDocument"]["Statement"][0]
    assert (delivery["Action"], delivery["Resource"]) == ("s3:PutObject", f"!Sub ${{EvidenceAccessLogs.Arn}}/{logging['LogFilePrefix']}*")


def test_flow_logs_reach_the_evidence_by_replication_and_from_our_accounts_only() -> None:
    """ministack replicates nothing and knows no log delivery."""
    resources = template()["Resources"]
    (rule,) = resources["FlowLogDelivery"]["Properties"]["ReplicationConfiguration"]["Rules"]
    assert rule["Destination"]["Bucket"] == "!GetAtt EvidenceBucket.Arn" and rule["Filter"]["Prefix"] == "flow-logs/"
    assert "ObjectLockConfiguration" not in resources["FlowLogDelivery"]["Properties"], "log delivery may send no checksum"
    delivery, check, _ = resources["FlowLogDeliveryPolicy"]["Properties"]["PolicyDocument"]["Statement"]
    (key,) = [s for s in resources["Key"]["Properties"]["KeyPolicy"]["Statement"] if isinstance(s, dict) and s["Sid"] == "FlowLogs"]
    assert (delivery["Action"], delivery["Resource"]) == ("s3:PutObject", "!Sub ${FlowLogDelivery.Arn}/flow-logs/*")
    for statement in (delivery, check, key):
        assert statement["Principal"] == {"Service": "delivery.logs.amazonaws.com"}
        assert statement["Condition"]["StringEquals"]["aws:SourceAccount"] and statement["Condition"]["ArnLike"]["aws:SourceArn"]
    replicate = resources["FlowLogReplicationPolicy"]["Properties"]["PolicyDocument"]["Statement"]
    (written,) = [s["Resource"] for s in replicate if "s3:ReplicateObject" in s["Action"]]
    assert written == "!Sub ${EvidenceBucket.Arn}/flow-logs/*", "no object of a case can come in by this way"


# --- Validators --------------------------------------------------------------------------------------------------


def test_sam_finds_nothing_wrong_with_the_template() -> None:
    assert "is a valid SAM Template" in run(TOOLS / "build/bin/sam", "validate", "--lint", "--region", "ap-northeast-1", SAM_CLI_TELEMETRY="0")


def test_the_security_linter_finds_nothing_that_has_no_reason() -> None:
    run(TOOLS / "lint/bin/checkov", "-f", "template.yaml", "--config-file", ".checkov.yaml")


def test_the_state_machine_is_valid_and_the_validator_would_say_if_not(tmp_path: Path) -> None:
    text = MACHINE.read_text(encoding="utf-8")
    good = validate_machine(text, tmp_path / "good.json")
    assert good.returncode == 0, good.stdout + good.stderr
    assert validate_machine(text.replace('"Next": "Report"', '"Next": "Nowhere"'), tmp_path / "bad.json").returncode != 0
