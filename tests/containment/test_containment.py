"""Whole containments on the local stack, with the template and the binaries that go to AWS."""

from __future__ import annotations

import json
import os
import signal
import time
import urllib.request
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from support.containment import contain, evidence, groups_named, isolated, journal, schema, statuses
from support.stack import ACCOUNT, OURSELVES, Execution, LocalStack, state_times
from support.victim import Victim, bare_instance, build_victims, differences, scaling_sizes, snapshot_of_world

CONCURRENCY = 2
NO_INSTANCE = "i-0123456789abcdef0"
STEPS = (
    "detach-autoscaling", "isolate-network", "deregister-targets", "protect-instance", "preserve-volumes", "tag-resources",
    "create-snapshots", "encrypt-snapshots", "delete-originals", "revoke-credentials", "detach-profile", "describe-network",
)  # fmt: skip


def test_a_compromised_instance_is_contained_and_aws_shows_it(stack: LocalStack) -> None:
    (victim,) = build_victims(stack)
    before = snapshot_of_world(stack, victim)
    execution = contain(stack, victim.instance, IncidentTicket="INC-7", Owner="soc@example.com")
    after = snapshot_of_world(stack, victim)

    assert execution.status == "SUCCEEDED", execution.cause
    assert execution.instance(victim.instance)["Verdict"] == "Contained"
    risks = " ".join(execution.instance(victim.instance)["ResidualRisk"])
    assert all(risk in risks for risk in ("launches a replacement", "NAT gateway", "DNS", "role chaining")), risks
    assert isolated(stack, victim)
    assert before["AutoScaling"]["LifecycleState"] == "InService" and after["AutoScaling"] is None
    assert before["Targets"] and after["Targets"] == []
    assert before["ClassicLoadBalancers"] and after["ClassicLoadBalancers"] == []
    assert after["Protection"] == {"disableApiTermination": True, "disableApiStop": True, "instanceInitiatedShutdownBehavior": "stop"}
    assert not any(after["VolumesDeletedWithInstance"].values()) and not any(after["InterfacesDeletedWithInstance"].values())
    assert before["Profile"] and after["Profile"] is None
    for resource in (victim.instance, *victim.volumes.values()):
        assert after["Tags"][resource] | {"SecurityIncidentStatus": "Investigation", "IncidentTicket": "INC-7"} == after["Tags"][resource]
    jsonschema.validate(execution.output, schema("output"))


def test_every_volume_has_a_completed_encrypted_snapshot_that_names_its_origin(stack: LocalStack) -> None:
    (victim,) = build_victims(stack)
    execution = contain(stack, victim.instance)
    snapshots = snapshot_of_world(stack, victim)["Snapshots"]
    encrypted = [one for one in snapshots.values() if one["Encrypted"] and one["State"] == "completed"]
    assert {one["Tags"]["VolumeId"] for one in encrypted} == set(victim.volumes.values())
    copies = [one for one in snapshots.values() if "SourceSnapshotId" in one["Tags"]]
    assert [one["KmsKeyId"] for one in copies] == [stack.outputs["KeyArn"]]
    assert {one["Tags"]["CordonCase"] for one in snapshots.values()} == {execution.instance(victim.instance)["CaseId"]}
    assert {one["Tags"]["DeviceName"] for one in snapshots.values()} == set(victim.volumes)


def test_the_deny_on_the_role_names_this_instance_only(stack: LocalStack) -> None:
    victim, other = build_victims(stack, 2)
    contain(stack, victim.instance)
    policies = snapshot_of_world(stack, victim)["RolePolicies"]
    ours = {name: policy for name, policy in policies.items() if name.startswith("cordon-")}
    assert list(ours) == [f"cordon-deny-{victim.instance}"]
    assert victim.instance in str(ours) and other.instance not in str(ours)
    assert all(statement["Effect"] == "Deny" and statement["Condition"] for statement in list(ours.values())[0]["Statement"])


def test_a_second_run_changes_nothing_and_keeps_the_first_journal(stack: LocalStack) -> None:
    (victim,) = build_victims(stack)
    first = contain(stack, victim.instance)
    kept, world, now = journal(stack, victim), snapshot_of_world(stack, victim), time.time()
    second = contain(stack, victim.instance)
    assert (first.status, second.status) == ("SUCCEEDED", "SUCCEEDED")
    assert stack.changes(now) == []
    assert differences(world, snapshot_of_world(stack, victim)) == []
    # The ledger of the evidence grows with what the second run has read; what it had stays.
    first_values = [{name: one for name, one in records.items() if name.startswith("journal#")} for records in (kept, journal(stack, victim))]
    ledgers = [values.pop(f"journal#{first.instance(victim.instance)['CaseId']}#evidence") for values in first_values]
    assert first_values[0] == first_values[1] and ledgers[0].items() < ledgers[1].items()
    assert second.instance(victim.instance)["CaseId"] == first.instance(victim.instance)["CaseId"]
    assert second.step(victim.instance, "isolate-network")["Changes"] == first.step(victim.instance, "isolate-network")["Changes"]


def test_the_journal_has_what_was_there_before_for_every_change(stack: LocalStack) -> None:
    (victim,) = build_victims(stack)
    before = snapshot_of_world(stack, victim)
    execution = contain(stack, victim.instance)
    case = execution.instance(victim.instance)["CaseId"]
    kept = journal(stack, victim)
    groups = kept[f"journal#{case}#isolate-network"]
    assert {eni: json.loads(groups[f"{eni}|Groups"]) for eni in victim.interfaces} == before["Groups"]
    deleted = kept[f"journal#{case}#preserve-volumes"]
    assert [deleted[f"{volume}|DeleteOnTermination"] for volume in victim.volumes.values()] == ["true", "true"]
    assert json.loads(kept[f"journal#{case}#describe-instance"][f"{victim.instance}|InstanceProfileArn"]) == before["Profile"]
    changed = {step["Step"] for step in execution.instance(victim.instance)["Steps"] if step["Changes"]}
    assert changed | {"describe-instance", "evidence"} == {record.rsplit("#", 1)[1] for record in kept if record.startswith("journal#")}


def test_a_dry_run_shows_the_plan_and_changes_nothing_at_all(stack: LocalStack) -> None:
    (victim,) = build_victims(stack)
    world, now = snapshot_of_world(stack, victim), time.time()
    execution = contain(stack, victim.instance, DryRun=True, RevokeAllSessions=True)
    writes = [call for call in stack.calls(now) if call["Action"] in ("PutItem", "UpdateItem", "PutObject", "DeleteItem")]
    assert execution.status == "SUCCEEDED" and execution.output["Verdict"] == "Planned"
    assert differences(world, snapshot_of_world(stack, victim)) == []
    assert stack.changes(now) == [] and writes == []
    planned = [step for step, status in statuses(execution, victim.instance).items() if status == "Planned"]
    assert set(STEPS) - set(planned) == {"delete-originals", "describe-network"}
    jsonschema.validate(execution.output, schema("output"))


def test_an_instance_with_nothing_to_detach_is_contained_all_the_same(stack: LocalStack) -> None:
    victim = bare_instance(stack)
    execution = contain(stack, victim.instance)
    assert execution.status == "SUCCEEDED", execution.cause
    absent = {step for step, status in statuses(execution, victim.instance).items() if status == "NotApplicable"}
    assert {"detach-autoscaling", "deregister-targets", "revoke-credentials", "detach-profile"} <= absent
    assert isolated(stack, victim)


def test_one_id_that_does_not_exist_fails_alone_and_is_named(stack: LocalStack) -> None:
    victims = build_victims(stack, 2)
    execution = contain(stack, victims[0].instance, NO_INSTANCE, victims[1].instance)
    assert execution.status == "FAILED" and execution.error == "NotContained"
    assert NO_INSTANCE in execution.cause and "there is no instance" in execution.cause
    assert [execution.instance(victim.instance)["Verdict"] for victim in victims] == ["Contained", "Contained"]
    jsonschema.validate(execution.outcome, schema("output"))


def test_one_step_that_fails_stops_no_other_and_the_execution_says_which(stack: LocalStack) -> None:
    (victim,) = build_victims(stack)
    stack.inject({"Service": "ec2", "Action": "ModifyInstanceAttribute", "Code": "UnauthorizedOperation", "Status": 403})
    execution = contain(stack, victim.instance)
    shown = statuses(execution, victim.instance)
    failed = {step for step, status in shown.items() if status == "Failed"}
    assert execution.status == "FAILED" and execution.error == "PartiallyContained"
    assert failed == {"protect-instance", "preserve-volumes"}
    assert "ec2:ModifyInstanceAttribute" in execution.cause and "UnauthorizedOperation" in execution.cause and "request id" in execution.cause
    assert isolated(stack, victim)
    assert snapshot_of_world(stack, victim)["Profile"] is None
    # What the failed step could still do is done, and reported.
    kept = [change["Resource"] for change in execution.step(victim.instance, "preserve-volumes")["Changes"]]
    assert sorted(kept) == sorted(victim.interfaces)


def test_a_failed_detach_does_not_keep_the_instance_on_the_network(stack: LocalStack) -> None:
    (victim,) = build_victims(stack)
    stack.inject({"Service": "autoscaling", "Action": "DetachInstances", "Code": "AccessDenied", "Status": 403})
    execution = contain(stack, victim.instance)
    assert execution.status == "FAILED" and "autoscaling:DetachInstances" in execution.cause
    assert isolated(stack, victim)


def test_a_throttled_account_is_contained_by_trying_again(stack: LocalStack) -> None:
    (victim,) = build_victims(stack)
    stack.inject(
        {"Service": "ec2", "Action": "ModifyNetworkInterfaceAttribute", "Code": "RequestLimitExceeded", "Status": 503, "Times": 3},
        {"Service": "ec2", "Action": "CreateSnapshots", "Code": "RequestLimitExceeded", "Status": 503, "Times": 1},
        {"Service": "dynamodb", "Action": "UpdateItem", "Code": "ThrottlingException", "Times": 2},
    )
    execution = contain(stack, victim.instance)
    assert execution.status == "SUCCEEDED", execution.cause
    assert len([call for call in stack.calls() if call["Action"] == "CreateSnapshots" and not call["Error"] and victim.instance in str(call)]) == 1


def test_a_lost_answer_to_create_snapshots_does_not_make_a_second_set(stack: LocalStack) -> None:
    (victim,) = build_victims(stack)
    stack.inject({"Service": "ec2", "Action": "CreateSnapshots", "Code": "InternalError", "Status": 500, "Times": 1, "Executed": True})
    execution = contain(stack, victim.instance)
    originals = [one for one in snapshot_of_world(stack, victim)["Snapshots"].values() if "SourceSnapshotId" not in one["Tags"]]
    assert execution.status == "SUCCEEDED", execution.cause
    assert len(originals) == len(victim.volumes)


def test_an_isolation_killed_half_way_is_finished_by_the_next_run(stack: LocalStack) -> None:
    (victim,) = build_victims(stack)
    before = snapshot_of_world(stack, victim)
    contain(stack, bare_instance(stack).instance)  # so that a process of the function is there
    (case, killed) = begin_and_kill_between_the_groups(stack, victim)
    on_conversion = groups_named(stack, "cordon-conversion", victim).values()
    groups = {group for groups in snapshot_of_world(stack, victim)["Groups"].values() for group in groups}
    assert killed and groups == {group["GroupId"] for group in on_conversion}, "the kill came between the two groups"

    execution = contain(stack, victim.instance)
    assert execution.status == "SUCCEEDED", execution.cause
    assert isolated(stack, victim)
    kept = journal(stack, victim)[f"journal#{execution.instance(victim.instance)['CaseId']}#isolate-network"]
    assert {eni: json.loads(kept[f"{eni}|Groups"]) for eni in victim.interfaces} == before["Groups"]


def begin_and_kill_between_the_groups(stack: LocalStack, victim: Victim) -> tuple[str, bool]:
    """Starts a containment; stops the execution and kills the function while the interfaces are on the conversion group."""
    arn = stack.begin({"InstanceIds": [victim.instance], "Region": stack.region})
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        conversion = {group["GroupId"] for group in groups_named(stack, "cordon-conversion", victim).values()}
        groups = [groups for groups in snapshot_of_world(stack, victim)["Groups"].values()]
        if conversion and all(set(one) <= conversion for one in groups):
            stack.client("stepfunctions").stop_execution(executionArn=arn)
            return arn, kill_function(stack, "isolate-network")
        time.sleep(0.05)
    return arn, False


def kill_function(stack: LocalStack, function: str) -> bool:
    """Kills the processes that run the stack's function, and only those: a process says in its environment which it is."""
    name = f"{stack.outputs['StateMachineArn'].rsplit(':', 1)[1]}-{function}"
    wanted = {f"AWS_LAMBDA_FUNCTION_NAME={name}".encode(), f"AWS_ENDPOINT_URL={stack.ministack.endpoint}".encode()}
    killed = False
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and wanted <= set((process / "environ").read_bytes().split(b"\0")):
                os.kill(int(process.name), signal.SIGKILL)
                killed = True
        except (PermissionError, FileNotFoundError, ProcessLookupError):
            continue
    return killed


def test_a_function_that_dies_is_started_again_by_the_workflow(stack: LocalStack) -> None:
    (victim,) = build_victims(stack)
    stack.inject({"Service": "iam", "Action": "PutRolePolicy", "DelaySeconds": 3, "Times": 1})
    arn = stack.begin({"InstanceIds": [victim.instance], "Region": stack.region})
    deadline = time.monotonic() + 30
    while not any(call["Action"] == "UpdateItem" and (call["Caller"] or "").endswith("revoke-credentials") for call in stack.calls(time.time() - 5)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert kill_function(stack, "revoke-credentials")
    execution = stack.wait(arn)
    assert execution.status == "SUCCEEDED", execution.cause
    assert any(event["type"] == "TaskFailed" for event in execution.history)


def test_a_rule_that_somebody_adds_to_the_isolation_group_is_taken_out_and_reported(stack: LocalStack) -> None:
    (victim,) = build_victims(stack)
    contain(stack, victim.instance)
    group = groups_named(stack, "cordon-isolation", victim)[victim.vpcs[0]]["GroupId"]
    ssh = [{"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
    stack.client("ec2").authorize_security_group_ingress(GroupId=group, IpPermissions=ssh)
    assert not isolated(stack, victim)
    execution = contain(stack, victim.instance)
    assert execution.status == "SUCCEEDED", execution.cause
    assert isolated(stack, victim)
    assert any("ingress tcp 22-22 0.0.0.0/0" in risk and "removes them" in risk for risk in execution.instance(victim.instance)["ResidualRisk"])


def test_a_name_that_an_attacker_took_first_isolates_all_the_same(stack: LocalStack) -> None:
    (victim,) = build_victims(stack)
    ec2 = stack.client("ec2")
    theirs = ec2.create_security_group(GroupName="cordon-isolation", Description="x", VpcId=victim.vpcs[0])["GroupId"]
    anything = [{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
    ec2.authorize_security_group_ingress(GroupId=theirs, IpPermissions=anything)
    execution = contain(stack, victim.instance)
    assert execution.status == "SUCCEEDED", execution.cause
    assert isolated(stack, victim)


def test_instances_that_settle_the_same_new_groups_at_once_are_all_isolated(stack: LocalStack) -> None:
    """The latency makes both look before either acts."""
    victims = build_victims(stack, 2)
    stack.inject(*({"Service": "ec2", "Action": action, "DelaySeconds": 0.4} for action in (
        "DescribeSecurityGroups", "DescribeSecurityGroupRules", "RevokeSecurityGroupEgress", "AuthorizeSecurityGroupIngress",
        "AuthorizeSecurityGroupEgress", "CreateSecurityGroup",
    )))  # fmt: skip
    execution = contain(stack, *(victim.instance for victim in victims))
    assert execution.status == "SUCCEEDED", execution.cause
    assert all(isolated(stack, victim) for victim in victims)


def test_no_instance_stays_connected_while_another_waits_for_its_snapshots(stack: LocalStack) -> None:
    victims = build_victims(stack, CONCURRENCY + 1)
    execution = contain(stack, *(victim.instance for victim in victims))
    visits = state_times(execution.history)
    last_isolated = max(visit["Left"] for visit in visits if visit["State"] == "Isolate network")
    assert last_isolated < min(visit["Entered"] for visit in visits if visit["State"] == "Wait for snapshots")


def test_several_instances_of_one_role_and_group_are_contained_so_many_at_a_time(stack: LocalStack) -> None:
    victims = build_victims(stack, 3)
    execution = contain(stack, *(victim.instance for victim in victims), victims[0].instance)
    assert execution.status == "SUCCEEDED", execution.cause
    assert [one["InstanceId"] for one in execution.output["Instances"]] == [victim.instance for victim in victims]
    assert all(isolated(stack, victim) for victim in victims)
    policies = snapshot_of_world(stack, victims[0])["RolePolicies"]
    assert set(policies) >= {f"cordon-deny-{victim.instance}" for victim in victims}, "none lost another's"
    assert most_at_once(execution) == CONCURRENCY


def most_at_once(execution: Execution) -> int:
    """How many instances were being taken off the network at the same time, at the most."""
    states = ("Describe instance", "Contain instance")
    visits = [visit for visit in state_times(execution.history) if visit["State"] in states]
    spans = {}
    for visit in visits:
        first, last = spans.get(visit["Iteration"], (visit["Entered"], visit["Left"]))
        spans[visit["Iteration"]] = (min(first, visit["Entered"]), max(last, visit["Left"] or last))
    return max(sum(start <= at < end for start, end in spans.values()) for at, _ in spans.values())


def test_decrement_at_minimum_size_lets_the_group_replace_it_and_says_so(stack: LocalStack) -> None:
    (victim,) = build_victims(stack)
    group = victim.auto_scaling_group
    stack.client("autoscaling").update_auto_scaling_group(AutoScalingGroupName=group, MinSize=scaling_sizes(stack, group)["DesiredCapacity"])
    execution = contain(stack, victim.instance, AutoScaling="Decrement")
    assert execution.status == "SUCCEEDED", execution.cause
    assert any("minimum size" in risk for risk in execution.instance(victim.instance)["ResidualRisk"])
    assert victim.instance not in scaling_sizes(stack, group)["Members"]


def test_a_spot_instance_is_isolated_and_its_missing_protection_is_not_called_contained(stack: LocalStack) -> None:
    (victim,) = build_victims(stack, lifecycle="spot")
    execution = contain(stack, victim.instance)
    assert (execution.status, execution.error) == ("FAILED", "PartiallyContained")
    protection = execution.step(victim.instance, "protect-instance")
    assert protection["Status"] == "Unsupported" and "Spot instance takes no termination protection" in protection["Reason"]
    assert isolated(stack, victim)


def test_the_facts_are_in_the_result_and_all_of_them_in_the_evidence(stack: LocalStack) -> None:
    (victim,) = build_victims(stack)
    execution = contain(stack, victim.instance)
    one = execution.instance(victim.instance)
    stored = evidence(stack, victim)
    assert set(stored) == {"describe-instance", "describe-network", "collect-facts", "verify-containment", "manifest.json"}
    assert one["Facts"]["PrivateIpAddresses"] and set(one["Facts"]["SecurityGroups"]) == set(victim.interfaces)
    assert one["Facts"]["AutoScalingGroups"] == [victim.auto_scaling_group]
    replies = {reply["Operation"]: reply for reply in stored["describe-instance"]["Replies"]}
    assert victim.instance in replies["EC2:DescribeInstances"]["Body"]
    assert any("userData" in reply["Body"] for reply in stored["describe-instance"]["Replies"])
    assert victim.open_group in str(stored["describe-network"]["Replies"]), "the group it had, although it is isolated by then"
    assert stored["verify-containment"]["Verdict"] == "Contained"
    assert {pointer["Bucket"] for pointer in one["Evidence"]} == {stack.outputs["EvidenceBucketName"]}


def test_evidence_is_locked_and_cannot_be_deleted(stack: LocalStack) -> None:
    (victim,) = build_victims(stack)
    pointer = contain(stack, victim.instance).instance(victim.instance)["Evidence"][0]
    s3 = stack.client("s3")
    retention = s3.get_object_retention(Bucket=pointer["Bucket"], Key=pointer["Key"])["Retention"]
    assert retention["Mode"] == "GOVERNANCE"
    with pytest.raises(s3.exceptions.ClientError, match="AccessDenied"):
        s3.delete_object(Bucket=pointer["Bucket"], Key=pointer["Key"], VersionId=pointer["VersionId"])


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ([NO_INSTANCE], "the input"),
        ({"Region": "ap-northeast-1"}, "InstanceIds"),
        ({"InstanceIds": [], "Region": "ap-northeast-1"}, "InstanceIds"),
        ({"InstanceIds": ["i-XYZ"], "Region": "ap-northeast-1"}, "InstanceIds[0]"),
        ({"InstanceIds": [NO_INSTANCE], "Region": "xx-nowhere-9"}, "Region"),
        ({"InstanceIds": [NO_INSTANCE], "Region": "ap-northeast-1", "Dryrun": True}, "Dryrun"),
        ({"InstanceIds": [f"i-{n:017x}" for n in range(10_001)], "Region": "ap-northeast-1"}, "InstanceIds"),
    ],
)
def test_bad_input_is_refused_in_one_sentence_before_anything_is_touched(stack: LocalStack, document: Any, field: str) -> None:
    now = time.time()
    execution = stack.run(document)
    assert (execution.status, execution.error) == ("FAILED", "InvalidInput")
    assert execution.cause.startswith(field) and "accepted:" in execution.cause and "\n" not in execution.cause
    assert [call["Action"] for call in stack.calls(now) if call["Service"] == "ec2"] in ([], ["DescribeRegions"])
    with pytest.raises(jsonschema.ValidationError) if field != "Region" and len(str(document)) < 1000 else pytest.MonkeyPatch.context():
        jsonschema.validate(document, schema("input"))


def test_the_parameters_of_the_template_bind(stack: LocalStack) -> None:
    machine = stack.client("stepfunctions").describe_state_machine(stateMachineArn=stack.outputs["StateMachineArn"])
    assert machine["name"] == "cordon-drill"
    assert f"{{% {CONCURRENCY} %}}" in machine["definition"] and "${" not in machine["definition"]
    assert logging_as_stored(stack)["Level"] == "ERROR"


def logging_as_stored(stack: LocalStack) -> dict[str, Any]:
    """ministack keeps CloudFormation's spelling of the keys, which boto3 then leaves out: so the answer is read as it is."""
    headers = {"X-Amz-Target": "AWSStepFunctions.DescribeStateMachine", "Content-Type": "application/x-amz-json-1.0", "User-Agent": f"app/{OURSELVES}"}
    credential = f"{ACCOUNT}/20260101/{stack.region}/states/aws4_request"
    headers["Authorization"] = f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders=host, Signature=none"
    body = json.dumps({"stateMachineArn": stack.outputs["StateMachineArn"]}).encode()
    with urllib.request.urlopen(urllib.request.Request(stack.ministack.endpoint, body, headers)) as answer:
        return json.load(answer)["loggingConfiguration"]
